// Runs a template for one event after the other, so that no event can leave anything to the next.
//
// `engine.py` evaluates this first in a context, then calls, by these names on the global object:
//
//   segrelayInstall(library)   makes the helpers global; `library` is the function that
//                              lytemplates.js is
//   segrelaySeal(make)         takes the template, a function that evaluates its source and returns
//                              the function `template`; freezes everything; returns whether there
//                              is such a function
//   segrelayRun(rows, settings, times, answers)
//                              renders rows; all four are texts, lists joined by U+001E but for
//                              `settings`, and `answers`, which is JSON: [[question, answer], …]
//   segrelayTaken()            the results so far: of the last call, or of the one that threw
//   segrelayAsked()            the questions of the last call, as JSON: [[question, parts], …]
//
// A result is JSON, or U+001D for "nothing was returned", or U+001C for "ask again with answers".
// Python can't be called while a limit of time is set. So a helper that needs it notes a question
// and goes on with a stand-in, and the event is rendered again once there is an answer.
(() => {
  "use strict";
  const SEPARATOR = "\u001e";
  const NOTHING = "\u001d";
  const ASKED = "\u001c";
  const MOST_SAID = 1000; // characters of what is thrown

  const NativeDate = Date;
  const global = globalThis;
  let make = null;
  let event = null; // the event that is rendered; null while a template is loaded
  let done = [];
  let asked = new Map();
  let answers = new Map();
  let isOpen = false; // whether the event has asked something that is not answered yet

  // What tells time, waits, evaluates text or shows the garbage collector has no place here.
  for (const name of [
    "performance", "Atomics", "SharedArrayBuffer", "WeakRef", "FinalizationRegistry", "eval",
    "queueMicrotask",
  ]) {
    delete global[name];
  }
  const NoFunction = function Function() { throw new TypeError("Function is not defined"); };
  NoFunction.prototype = Function.prototype;
  for (const kind of [
    function () {}, function* () {}, async function () {}, async function* () {},
  ]) {
    Object.defineProperty(Object.getPrototypeOf(kind), "constructor", { value: NoFunction });
  }
  global.Function = NoFunction;
  const silent = () => {};
  global.console = { log: silent, info: silent, warn: silent, error: silent, debug: silent };

  // What is thrown becomes a text here, within the limits of the call: whoever reads it has none.
  const stackOf = Object.getOwnPropertyDescriptor(Error.prototype, "stack")?.get ?? (() => "");
  function told(thrown) {
    const stack = thrown instanceof Object ? Reflect.apply(stackOf, thrown, []) ?? "" : "";
    return `${String(thrown).slice(0, MOST_SAID)}\n${stack}`;
  }

  // The time of the event, in milliseconds: a render can be repeated. The time zone is UTC.
  function now() {
    if (event === null) return 0;
    if (!event.at) {
      const entry = (JSON.parse(event.text).segment_events || [])[0] || {};
      event.at = NativeDate.parse(entry[entry.event]);
    }
    if (!event.at) throw new RangeError("this event has no time, and there is no other clock");
    return event.at;
  }

  const LOCAL = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;
  const inUtc = (text) => (LOCAL.test(text) ? `${text}Z` : text);
  const parse = (text) => NativeDate.parse(inUtc(String(text)));

  function FixedDate(...given) {
    if (!new.target) return new FixedDate().toString();
    if (given.length === 0) given = [now()];
    else if (given.length > 1) given = [NativeDate.UTC(...given)];
    else if (typeof given[0] === "string") given = [parse(given[0])];
    return Reflect.construct(NativeDate, given, new.target);
  }
  FixedDate.prototype = NativeDate.prototype;
  FixedDate.prototype.constructor = FixedDate;
  Object.defineProperty(FixedDate, "name", { value: "Date" });
  Object.assign(FixedDate, { now, parse, UTC: NativeDate.UTC });
  for (const part of [
    "FullYear", "Month", "Date", "Day", "Hours", "Minutes", "Seconds", "Milliseconds",
  ]) {
    FixedDate.prototype[`get${part}`] = FixedDate.prototype[`getUTC${part}`];
    if (part !== "Day") FixedDate.prototype[`set${part}`] = FixedDate.prototype[`setUTC${part}`];
  }
  FixedDate.prototype.getTimezoneOffset = () => 0;
  FixedDate.prototype.toString = FixedDate.prototype.toUTCString;
  global.Date = FixedDate;

  // The same numbers whenever the same event is rendered (mulberry32, seeded by its text).
  Math.random = () => {
    if (event === null) return 0;
    if (event.seed === null) {
      event.seed = 0;
      for (let at = 0; at < event.text.length; at++) {
        event.seed = (Math.imul(event.seed, 31) + event.text.charCodeAt(at)) | 0;
      }
    }
    event.seed = (event.seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(event.seed ^ (event.seed >>> 15), 1 | event.seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };

  // Lytics' own variables. Ours hands no secrets to a template, and knows no streams.
  const jobConfig = () => (event === null || event.settings === "{}" ? undefined : event.settings);
  for (const [name, get] of [
    ["ly_job_config", jobConfig], ["ly_auth_config", () => undefined],
    ["ly_segment_association", () => undefined], ["ly_event_stream", () => undefined],
  ]) {
    Object.defineProperty(global, name, { get, configurable: true });
  }

  global.segrelayInstall = (library) => {
    const runtime = {
      now,
      parseTime: parse,
      settings: () => (event === null ? {} : (event.job ??= JSON.parse(event.settings))),
      ask(question, standIn) {
        const key = JSON.stringify(question);
        const answer = answers.get(key);
        if (answer !== undefined) return answer;
        asked.set(key, question);
        isOpen = true;
        return standIn;
      },
    };
    for (const [name, helper] of Object.entries(library(runtime))) {
      Object.defineProperty(global, name, { value: helper, configurable: true });
    }
  };

  // A frozen prototype would make `error.name = …` do nothing. So a few of their properties become
  // accessors whose setter defines the property of the object itself.
  function allowOverriding(prototype) {
    for (const [name, found] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (!("value" in found) || !found.configurable) continue;
      Object.defineProperty(prototype, name, {
        enumerable: found.enumerable,
        get: () => found.value,
        set(value) {
          if (this === prototype) throw new TypeError(`${name} of a prototype can't be changed`);
          Object.defineProperty(this, name, {
            value, writable: true, enumerable: true, configurable: true,
          });
        },
      });
    }
  }

  function freezeAll(roots) {
    const seen = new Set();
    const waiting = [...roots];
    while (waiting.length > 0) {
      const one = waiting.pop();
      if (one === null || (typeof one !== "object" && typeof one !== "function")) continue;
      if (seen.has(one)) continue;
      seen.add(one);
      waiting.push(Object.getPrototypeOf(one));
      for (const key of Reflect.ownKeys(one)) {
        const { value, get, set } = Object.getOwnPropertyDescriptor(one, key);
        waiting.push(value, get, set);
      }
      if (one !== global) Object.freeze(one);
    }
  }

  const hidden = () => [
    function* () {}, async function () {}, async function* () {}, (async function* () {})(),
    [][Symbol.iterator](), ""[Symbol.iterator](), new Map()[Symbol.iterator](),
    new Set()[Symbol.iterator](), "".matchAll(/./g), (function* () {})(),
    [].values().map((one) => one), Iterator.from({ next() {} }),
  ];

  const prototype = Object.getPrototypeOf(global);
  let known = new Set();
  function tidy() {
    if (Object.getPrototypeOf(global) !== prototype) Object.setPrototypeOf(global, prototype);
    const keys = Reflect.ownKeys(global);
    if (keys.length === known.size) return;
    for (const key of keys) {
      if (!known.has(key) && !Reflect.deleteProperty(global, key)) {
        throw new InternalError("the template defined a global that can't be removed");
      }
    }
  }

  global.segrelaySeal = (given) => {
    make = given;
    for (const name of Reflect.ownKeys(global)) {
      if (String(name).startsWith("segrelay")) delete global[name];
    }
    known = new Set(Reflect.ownKeys(global));
    // Freezing does not stop their native setters.
    for (const name of ["prepareStackTrace", "stackTraceLimit"]) {
      const found = Object.getOwnPropertyDescriptor(Error, name);
      if (found) Object.defineProperty(Error, name, { get: () => undefined, set: undefined });
    }
    for (const kind of [
      Object, Error, TypeError, RangeError, ReferenceError, SyntaxError, EvalError, URIError,
      AggregateError, InternalError,
    ]) {
      allowOverriding(kind.prototype);
    }
    freezeAll([global, ...hidden()]);
    for (const key of known) {
      const found = Object.getOwnPropertyDescriptor(global, key);
      const fixed = "value" in found ? { writable: false } : {};
      Object.defineProperty(global, key, { configurable: false, ...fixed });
    }
    // Only now does the template run: what it added to a prototype would outlast an event.
    try {
      return typeof make() === "function";
    } catch (error) {
      throw told(error);
    } finally {
      tidy();
    }
  };

  // JSON has no such numbers, and would say null.
  function strayNumber(value, path, seen) {
    if (typeof value === "number" && !Number.isFinite(value)) return `${path} is ${value}`;
    if (value instanceof NativeDate && Number.isNaN(value.getTime())) return `${path} is no date`;
    if (value === null || typeof value !== "object" || seen.has(value)) return "";
    seen.add(value);
    for (const key of Object.keys(value)) {
      const inner = Array.isArray(value) ? `${path}[${key}]` : path ? `${path}.${key}` : key;
      const found = strayNumber(value[key], inner, seen);
      if (found) return found;
    }
    return "";
  }

  function written(value) {
    if (value === undefined || value === null) return NOTHING;
    if (typeof value.then === "function") {
      throw new TypeError("the template returned a promise: it must not be async");
    }
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError(`the template returned a ${typeof value}`);
    if (text.includes("null")) {
      const stray = strayNumber(value, "", new Set());
      if (stray) throw new TypeError(`the template returned what is no JSON: ${stray}`);
    }
    return text;
  }

  function rendered(text, settings, time) {
    event = { text, settings, at: Number(time), job: null, seed: null };
    isOpen = false;
    let result = ASKED;
    try {
      result = written(make()(JSON.parse(text)));
    } catch (error) {
      if (!isOpen) throw error;
    } finally {
      tidy();
    }
    return isOpen ? ASKED : result;
  }

  global.segrelayRun = (rows, settings, times, given) => {
    done = [];
    asked = new Map();
    answers = new Map(JSON.parse(given));
    const all = times.split(SEPARATOR);
    for (const [at, text] of rows.split(SEPARATOR).entries()) {
      try {
        done.push(rendered(text, settings, all[at]));
      } catch (error) {
        throw told(error);
      }
    }
    return done.join(SEPARATOR);
  };
  global.segrelayTaken = () => done.join(SEPARATOR);
  global.segrelayAsked = () => JSON.stringify([...asked]);
})();
