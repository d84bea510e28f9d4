// What the console's pages do beyond HTML: local times, copying, sorting, keys, and parts that stay fresh.
'use strict';
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
  const today = new Intl.DateTimeFormat([], {hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false});
  const thisYear = new Intl.DateTimeFormat([], {month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hour12: false});
  const other = new Intl.DateTimeFormat([], {year: 'numeric', month: 'short', day: 'numeric',
    hour: '2-digit', minute: '2-digit', hour12: false});

  function local(at) {
    const now = new Date();
    const isToday = at.toDateString() === now.toDateString();
    return (isToday ? today : at.getFullYear() === now.getFullYear() ? thisYear : other).format(at);
  }
  const relative = new Intl.RelativeTimeFormat('en');
  const units = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 0]];
  function ago(at) {
    const seconds = (at - Date.now()) / 1000;
    const [unit, length] = units.find(([, least]) => Math.abs(seconds) >= least);
    return relative.format(Math.round(seconds / (length || 1)), unit);
  }
  function dress(root) {
    for (const time of root.querySelectorAll('time[datetime]')) {
      const at = new Date(time.dateTime);
      if (isNaN(at)) continue;
      const text = local(at);
      time.textContent = time.closest('[data-ago]') ? `${text} (${ago(at)})` : text;
    }
    for (const button of root.querySelectorAll('button.copy')) button.hidden = !navigator.clipboard;
    makeSortable(root);
  }
  // The head of a column sorts its table, and so it stays when the table is fetched anew.
  const orders = new Map();
  const collator = new Intl.Collator([], {numeric: true});
  function titleOf(table) { return [...table.tHead.rows[0].cells].map((cell) => cell.textContent).join('|'); }
  function valueOf(row, at) {
    const cell = row.cells[at], time = cell && cell.querySelector('time'), bar = cell && cell.querySelector('progress');
    return time ? time.dateTime : bar ? String(bar.value) : cell ? cell.textContent.trim().replace(/(\d),(?=\d)/g, '$1') : '';
  }
  function sort(table) {
    const [at, sign] = orders.get(titleOf(table)) || [];
    if (at === undefined) return;
    const body = table.tBodies[0];
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
    table.tHead.rows[0].cells[at].setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    body.append(...[...body.rows].sort((a, b) => sign * collator.compare(valueOf(a, at), valueOf(b, at))));
  }
  function makeSortable(root) {
    for (const table of root.querySelectorAll('table.stack')) {
      for (const [at, cell] of [...table.tHead.rows[0].cells].entries()) {
        if (table.tBodies[0].rows.length < 2 || cell.querySelector('.over, button')) continue;
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'plain';
        button.append(...cell.childNodes);
        button.addEventListener('click', () => {
          const title = titleOf(table), [was, sign] = orders.get(title) || [];
          orders.set(title, [at, was === at ? -sign : cell.classList.contains('n') ? -1 : 1]);
          sort(table);
        });
        cell.append(button);
      }
      sort(table);
    }
  }
  document.getElementById('zone').textContent = zone;
  dress(document);
  const here = document.querySelector('header nav [aria-current]');
  if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 40;

  document.addEventListener('click', (event) => {
    const button = event.target.closest('button.copy');
    if (!button) return;
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    }, () => {});
  });

  // The value of a plot under the pointer stands in place of the newest.
  const number = new Intl.NumberFormat();
  document.addEventListener('pointermove', (event) => {
    for (const shown of document.querySelectorAll('.plots b[data-newest]')) {
      shown.textContent = shown.dataset.newest;
      shown.removeAttribute('data-newest');
    }
    const svg = event.target.closest('figure') && event.target.closest('figure').querySelector('svg[data-points]');
    if (!svg) return;
    const points = JSON.parse(svg.dataset.points), box = svg.getBoundingClientRect();
    const first = points[0][0], last = points[points.length - 1][0];
    const at = first + (last - first) * (event.clientX - box.left) / box.width;
    const near = points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    const shown = svg.closest('figure').querySelector('b');
    shown.dataset.newest = shown.textContent;
    shown.textContent = `${local(new Date(near[0]))} · ${number.format(near[1])}${svg.dataset.unit}`;
  });

  // Keys: / finds, g and a letter goes to a page, ? shows them.
  const keys = document.getElementById('keys');
  const keysButton = document.getElementById('keys-button');
  keysButton.hidden = false;
  keysButton.addEventListener('click', () => keys.showModal());
  let goes = 0;
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, select, textarea') || keys.open) return;
    const link = goes > Date.now() - 1500 && document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`);
    goes = 0;
    if (link) { event.preventDefault(); link.click(); }
    else if (event.key === 'g') goes = Date.now();
    else if (event.key === '?') keys.showModal();
    else if (event.key === '/') {
      const find = document.getElementById('find');
      if (find) { event.preventDefault(); find.focus(); }
    }
  });

  // Parts are fetched anew, but not while the tab is hidden, text is selected, or somebody is in one.
  let every = 1000 * Number(document.body.dataset.live);
  const stale = document.getElementById('stale');
  let since = 0;
  function isBusy() {
    const selection = document.getSelection();
    const active = document.activeElement;
    return document.hidden || (selection && !selection.isCollapsed) || keys.open ||
      (active && active.closest('[data-part]') && active.matches('input, select, textarea, summary'));
  }
  function tell(what) {
    since = since || Date.now();
    stale.textContent = `${what} This page is as of ${today.format(since)}.`;
    stale.hidden = false;
  }
  function replace(fresh) {
    document.title = fresh.title || document.title;
    const focused = document.activeElement;
    const mark = focused && focused.closest('[data-part]') && focused.getAttribute('href');
    const head = focused && focused.closest('[data-part] thead button') && focused.textContent;
    for (const part of document.querySelectorAll('[data-part]')) {
      const next = fresh.getElementById(part.id);
      if (!next) continue;
      const node = document.importNode(next, true);
      dress(node);
      if (node.innerHTML === part.innerHTML) continue;
      part.replaceWith(node);
      const again = mark ? node.querySelector(`a[href="${CSS.escape(mark)}"]`)
        : [...node.querySelectorAll('thead button')].find((button) => button.textContent === head);
      if (again) again.focus({preventScroll: true});
    }
  }
  async function refresh() {
    if (isBusy()) return true;
    try {
      const answer = await fetch(location.href, {credentials: 'same-origin', redirect: 'manual'});
      if (answer.type === 'opaqueredirect') { tell('The session has ended: sign in again.'); return false; }
      if (answer.status === 503) { tell("Redis can't be reached."); return true; }
      if (!answer.ok) { tell('The console answers with an error.'); return true; }
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (!document.querySelector('[data-part]')) { location.reload(); return false; }
      if (isBusy()) return true;
      replace(fresh);
      every = 1000 * Number(fresh.body.dataset.live) || every;
      since = 0;
      stale.hidden = true;
      if (fresh.querySelector('[data-over]')) { location.reload(); return false; }
      return true;
    } catch {
      tell("The console can't be reached.");
      return true;
    }
  }
  async function loop() {
    if (await refresh()) setTimeout(loop, every);
  }
  // Parts that take longer come after the page.
  for (const part of document.querySelectorAll('[data-later]')) {
    fetch(part.dataset.later, {credentials: 'same-origin', redirect: 'error'})
      .then((answer) => (answer.ok ? answer.text() : Promise.reject()))
      .then((text) => replace(new DOMParser().parseFromString(text, 'text/html')))
      .catch(() => {});
  }
  if (every && !document.querySelector('[data-over], .revealed')) setTimeout(loop, every);
})();
