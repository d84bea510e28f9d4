// The helpers that a template in JavaScript finds as globals: those that Lytics documents in "Using
// the JavaScript Library", under the same names.
//
//   function template(data) {
//     return { email: get("email", "", data), audience: segSlug(data) };
//   }
//
// The value of this file is a function of the runtime:
//   now()                 the time of the event, in milliseconds
//   parseTime(text)       milliseconds, or NaN
//   settings()            the trigger's settings
//   ask(question, like)   the answer of Python to [name, …texts]; until it is known, `like`
(runtime) => {
  "use strict";

  const isObject = (value) => value !== null && typeof value === "object";
  const has = (obj, key) => isObject(obj) && Object.hasOwn(obj, key);
  const orNull = (def) => (def === undefined ? null : def);
  const fieldOf = (obj, key, def) => (has(obj, key) ? obj[key] : orNull(def));

  // get(field, def, obj)
  //
  // A field of a profile; `def`, or else null, where it is absent.
  const get = (field, def, obj) => fieldOf(obj, field, def);

  // getFirstField(field, def, obj)
  //
  // The same; of a list its first element, and `def` of an empty list.
  const firstOf = (value, def) => {
    if (!Array.isArray(value)) return value;
    return value.length > 0 ? value[0] : orNull(def);
  };
  const getFirstField = (field, def, obj) => firstOf(get(field, def, obj), def);

  // getMap(a, b, def, obj)
  //
  // obj[a][b], or `def` where there is no such thing.
  const getMap = (a, b, def, obj) => fieldOf(get(a, null, obj), b, def);

  // jobConfGet(key, def)
  //
  // A value of the trigger's `settings`.
  const jobConfGet = (key, def) => fieldOf(runtime.settings(), key, def);

  // jobConfGetMapByTarget(key, def), jobConfGetMapBySource(key, def)
  //
  // A setting that is a list of {target, source}, as an object by target, or by source.
  const mapped = (key, def, from, to) => {
    const pairs = jobConfGet(key, null);
    if (!Array.isArray(pairs)) return orNull(def);
    const found = {};
    for (const pair of pairs) if (has(pair, from)) found[pair[from]] = fieldOf(pair, to, null);
    return found;
  };
  const jobConfGetMapByTarget = (key, def) => mapped(key, def, "target", "source");
  const jobConfGetMapBySource = (key, def) => mapped(key, def, "source", "target");

  // authConfGet(key, def), getOAuth2AccessToken()
  //
  // Our choice: an error. A template gets no secrets here; an empty one would be sent as it is.
  const noSecrets = (name) => () => {
    throw new Error(
      `${name} has nothing to give: a template gets no secrets; put them into the authorization` +
        " of the destination",
    );
  };

  // segEvents(obj), segSlug(obj), isEnter(obj), isExit(obj), inSeg(id, obj)
  //
  // The segment events of a profile, their slugs joined, and questions about any of them. A profile
  // here has exactly one: a payload with several becomes several events.
  const segEvents = (obj) => {
    const found = fieldOf(obj, "segment_events", null);
    return Array.isArray(found) ? found : [];
  };
  const segSlug = (obj) => segEvents(obj).map((one) => fieldOf(one, "slug", "")).join("");
  const isEnter = (obj) => segEvents(obj).some((one) => fieldOf(one, "event") === "enter");
  const isExit = (obj) => segEvents(obj).some((one) => fieldOf(one, "event") === "exit");
  const inSeg = (id, obj) =>
    segEvents(obj).some((one) => fieldOf(one, "id") === id || fieldOf(one, "slug") === id);

  // segAssociationGet(key, def), stream()
  //
  // There are none here: always `def`, and "".
  const segAssociationGet = (key, def) => orNull(def);
  const stream = () => "";

  // sha256(value), sha1(value), hmacSha256(message, key)
  //
  // Digests as lowercase hexadecimal digits; what is no text counts as its text. Our choice: of null
  // and undefined it is an error, because the digest of a missing value would make all who lack it
  // one person.
  const textOf = (name, value) => {
    if (value === null || value === undefined) {
      throw new TypeError(`${name} of a value that is missing`);
    }
    return String(value);
  };
  const digest = (name, digits) => (value) =>
    runtime.ask([name, textOf(name, value)], "0".repeat(digits));
  const sha256 = digest("sha256", 64);
  const sha1 = digest("sha1", 40);
  const hmacSha256 = (message, key) =>
    runtime.ask(
      ["hmacSha256", textOf("hmacSha256", message), textOf("hmacSha256", key)], "0".repeat(64),
    );

  // isValidSha256(value), isValidSha1(value)
  //
  // Whether it is a text of 64, or 40, lowercase hexadecimal digits.
  const isHex = (value, pattern) => typeof value === "string" && pattern.test(value);
  const isValidSha256 = (value) => isHex(value, /^[0-9a-f]{64}$/);
  const isValidSha1 = (value) => isHex(value, /^[0-9a-f]{40}$/);

  // unixTimestamp()
  //
  // Our choice: the time of the event in seconds, so that a render can be repeated.
  const unixTimestamp = () => Math.floor(runtime.now() / 1000);

  // unixTimestampDateTime(dt, tz)
  //
  // The seconds of a date and time; `tz` counts for nothing. Our choice: null where it is none.
  const unixTimestampDateTime = (dt, tz) => {
    const found = runtime.parseTime(dt);
    return Number.isNaN(found) ? null : Math.floor(found / 1000);
  };

  // toPhoneE164(phone, region)
  //
  // A phone number in E.164; `region` ("US") is the country of a number without one. What is no
  // number there becomes its digits after a "+".
  const toPhoneE164 = (phone, region) =>
    runtime.ask(["toPhoneE164", textOf("toPhoneE164", phone), String(region || "US")], "+0");

  // profileFieldFromConfig(key, def, confObj, entObj), firstProfileFieldFromConfig(…)
  //
  // The field of the profile `entObj` whose name the setting `key` has; settings are those of the
  // trigger where `confObj` is null.
  const fromConfig = (read) => (key, def, confObj, entObj) => {
    const name = confObj ? fieldOf(confObj, key, null) : jobConfGet(key, null);
    return name === null ? orNull(def) : read(name, def, entObj);
  };
  const profileFieldFromConfig = fromConfig(get);
  const firstProfileFieldFromConfig = fromConfig(getFirstField);

  // hashedProfileFieldFromConfig(key, def, confObj, entObj)
  //
  // The same as firstProfileFieldFromConfig, as a SHA-256 digest of the text in lower case; what is
  // one already stays. Our choice: `def` is returned as it is where there is nothing to hash.
  const hashedProfileFieldFromConfig = (key, def, confObj, entObj) => {
    const value = firstProfileFieldFromConfig(key, null, confObj, entObj);
    if (value === null || value === "") return orNull(def);
    return isValidSha256(value) ? value : sha256(String(value).toLowerCase());
  };

  return {
    get, getFirstField, getMap, jobConfGet, jobConfGetMapByTarget, jobConfGetMapBySource,
    authConfGet: noSecrets("authConfGet"),
    getOAuth2AccessToken: noSecrets("getOAuth2AccessToken"),
    segEvents, segSlug, isEnter, isExit, inSeg, segAssociationGet, stream, sha256, sha1,
    isValidSha256, isValidSha1, unixTimestamp, unixTimestampDateTime, toPhoneE164,
    profileFieldFromConfig, firstProfileFieldFromConfig, hashedProfileFieldFromConfig, hmacSha256,
    hmacSHA256: hmacSha256,
  };
};
