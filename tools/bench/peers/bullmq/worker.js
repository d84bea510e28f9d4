// Works on the queue: the template by hand, a request per event, many under way at once.
const { Worker } = require("bullmq");
const { parsePhoneNumberFromString } = require("libphonenumber-js/max");
const { Pool } = require("undici");
const { QUEUE, connection } = require("./shared");

const CONCURRENCY = 100;
const pool = new Pool(process.env.PEER_SANDBOX, { connections: 32, pipelining: 1 });
const headers = {
  "x-partner-name": "acme",
  "x-request-token": "demo",
  "content-type": "application/json",
};
const SCORES = [
  "consistency", "frequency", "intensity", "maturity", "momentum",
  "propensity", "quantity", "recency", "volatility",
];

const STATED = { t: true, f: false };
const LANGUAGES = new Map();
const COUNTRIES = new Map();
const REGION = "US";

function phone(text) {
  const found = text && parsePhoneNumberFromString(text, REGION);
  return found && found.isValid() ? found.number : undefined;
}

function language(text) {
  if (!text) return undefined;
  if (!LANGUAGES.has(text)) {
    const locale = new Intl.Locale(text.replace("_", "-")).maximize();
    LANGUAGES.set(text, `${locale.language}_${locale.region}`);
  }
  return LANGUAGES.get(text);
}

// The codes of the countries' English names.
const names = new Intl.DisplayNames(["en"], { type: "region", fallback: "none" });
for (const a of "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  for (const b of "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
    const name = names.of(a + b);
    if (name) COUNTRIES.set(name, a + b).set(a + b, a + b);
  }
}

function given(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined && v !== ""));
}

function entrance(profile, details) {
  const scores = SCORES.map((name) => [`score_${name}`, profile[`score_${name}`]]);
  return {
    identifiers: { email: profile.email, custom: { lytics_id: profile._id } },
    attributes: {
      ...given({
        email: profile.email.trim().toLowerCase(),
        phone_number: phone(profile.phone),
        name: profile.first_name,
        surname: profile.last_name,
        gender: profile.gender,
        age: profile.age ? Number(profile.age) : undefined,
        language: language(profile.user_language),
        country: COUNTRIES.get(profile.visit_country),
        city: profile.visit_city,
        email_optin: STATED[profile.consent_email_status],
        gdpr_optin: STATED[profile.consent_gdpr_status],
        sms_optin: STATED[profile.consent_sms_status],
        whatsapp_optin: STATED[profile.consent_whatsapp_status],
      }),
      custom: {
        lytics_computed_attr: [details.slug],
        ...given({ status: profile.status, ...Object.fromEntries(scores) }),
      },
    },
    events: [
      {
        event_name: "lytics_trigger",
        timestamp: `${details.enter.slice(0, 19)}Z`,
        event_params: {
          custom: { id: details.id, audience: details.slug, trigger: "enter", origin: "Lytics" },
        },
      },
    ],
  };
}

function exit(profile, details) {
  return {
    identifiers: { email: profile.email, custom: { lytics_id: profile._id } },
    custom: { partial: { lytics_computed_attr: [details.slug] } },
  };
}

async function deliver(job) {
  const profile = job.data.data;
  const details = profile.segment_events[0];
  const enters = details.event === "enter";
  const answer = await pool.request({
    method: "POST",
    path: enters ? "/api/user/v1/upsert" : "/api/user/v1/attribute/delete",
    headers,
    body: JSON.stringify({ users: [enters ? entrance(profile, details) : exit(profile, details)] }),
  });
  await answer.body.dump();
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
}

new Worker(QUEUE, deliver, { connection, concurrency: CONCURRENCY });
