// Works on the queue: the page's template by hand, one request for each job, many under way at once.
const fs = require("node:fs");
const { Worker } = require("bullmq");
const { parsePhoneNumberFromString } = require("libphonenumber-js/max");
const { Pool } = require("undici");
const { QUEUE, connection } = require("./shared");

// As many events under way as pay: all of them at once would be rendered before the first is sent.
const CONCURRENCY = process.env.PEER_TOGETHER === "1" ? 100 : 2;
const pool = new Pool(process.env.PEER_SANDBOX, { connections: 32, pipelining: 1 });
const headers = {
  "x-partner-name": "acme",
  "x-request-token": "demo",
  "content-type": "application/json",
};
const template = new Function(`${fs.readFileSync(process.env.PEER_TEMPLATE)}; return template;`)();

const STATED = { t: true, f: false };
const COUNTRIES = { "United States": "US", "Germany": "DE" };
const LANGUAGES = { "en-us": "en_US", "de": "de_DE" };
const REGION = "US";

// There are fewer invented numbers than people, and segrelay remembers numbers, too.
const phones = new Map();

function phone(text) {
  if (!text) return undefined;
  if (!phones.has(text)) {
    const found = parsePhoneNumberFromString(text, REGION);
    phones.set(text, found && found.isValid() ? found.number : undefined);
  }
  return phones.get(text);
}

function pruned(values) {
  const kept = {};
  for (const name in values) {
    const value = values[name];
    if (value !== undefined && value !== null && value !== "") kept[name] = value;
  }
  return kept;
}

// Leaves out what is empty, and converts the rest to the formats that Insider accepts.
function corrected(user) {
  const given = user.attributes;
  const email = given.email.trim().toLowerCase();
  if (!user.insider_id) delete user.insider_id;
  user.identifiers = { email, custom: pruned(user.identifiers.custom) };
  given.email = email;
  given.phone_number = phone(given.phone_number);
  given.age = given.age ? Number(given.age) : undefined;
  given.country = COUNTRIES[given.country] ?? given.country;
  given.language = LANGUAGES[given.language] ?? given.language;
  given.email_optin = STATED[given.email_optin];
  given.gdpr_optin = STATED[given.gdpr_optin];
  given.sms_optin = STATED[given.sms_optin];
  given.whatsapp_optin = STATED[given.whatsapp_optin];
  given.custom = pruned(given.custom);
  user.attributes = pruned(given);
  return user;
}

async function deliver(job) {
  const users = job.data.flatMap((event) => template(event.data).users.map(corrected));
  const answer = await pool.request({
    method: "POST",
    path: "/api/user/v1/upsert",
    headers,
    body: JSON.stringify({ users }),
  });
  await answer.body.dump();
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
}

new Worker(QUEUE, deliver, { connection, concurrency: CONCURRENCY });
