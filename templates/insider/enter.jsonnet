// An entrance, for POST /api/user/v1/upsert: the profile, the audience's slug appended to the
// person's list, and the event.
//
// Settings: audience_attribute, the custom attribute that lists the audiences of a person.
//
// The list is never overwritten (no not_append): Insider's may be newer than this event's. Only
// single values are sent as custom attributes; another list would grow with every event. What the
// profile does not have is left out: Insider takes "" for a value.
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";
local values = import "values.libsonnet";

// "" where the profile does not have it.
local text(field) = local x = event.get(field, ""); if x == null then "" else x;
local phone = text("phone");
local name = text("first_name");
local surname = text("last_name");
local gender = text("gender");
local language = text("user_language");
local country = text("visit_country");
local city = text("visit_city");
local status = text("status");

// null where the profile does not have it, or it is no number.
local number(field) = local x = event.get(field); if x == null then null else values.number(x);
local age = number("age");
local consistency = number("score_consistency");
local frequency = number("score_frequency");
local intensity = number("score_intensity");
local maturity = number("score_maturity");
local momentum = number("score_momentum");
local propensity = number("score_propensity");
local quantity = number("score_quantity");
local recency = number("score_recency");
local volatility = number("score_volatility");
local percentile = number("segment_prediction_percentile");

// null where the profile does not say it: an opt-in that nobody gave must not be sent.
local stated(field) = local x = event.get(field); if x == null then null else values.stated(x);
local emailOptin = stated("consent_email_status");
local gdprOptin = stated("consent_gdpr_status");
local smsOptin = stated("consent_sms_status");
local whatsappOptin = stated("consent_whatsapp_status");

{
  users: [
    {
      identifiers: insider.identifiers,
      attributes: {
        [if "email" in insider.identifiers then "email"]: insider.identifiers.email,
        [if phone != "" then "phone_number"]: phone,
        [if name != "" then "name"]: name,
        [if surname != "" then "surname"]: surname,
        [if gender != "" then "gender"]: gender,
        [if age != null then "age"]: age,
        [if language != "" then "language"]: language,
        [if country != "" then "country"]: country,
        [if city != "" then "city"]: city,
        [if emailOptin != null then "email_optin"]: emailOptin,
        [if gdprOptin != null then "gdpr_optin"]: gdprOptin,
        [if smsOptin != null then "sms_optin"]: smsOptin,
        [if whatsappOptin != null then "whatsapp_optin"]: whatsappOptin,
        custom: {
          [if event.isEnter() then insider.audienceAttribute]: [event.segSlug()],
          [if status != "" then "status"]: status,
          [if consistency != null then "score_consistency"]: consistency,
          [if frequency != null then "score_frequency"]: frequency,
          [if intensity != null then "score_intensity"]: intensity,
          [if maturity != null then "score_maturity"]: maturity,
          [if momentum != null then "score_momentum"]: momentum,
          [if propensity != null then "score_propensity"]: propensity,
          [if quantity != null then "score_quantity"]: quantity,
          [if recency != null then "score_recency"]: recency,
          [if volatility != null then "score_volatility"]: volatility,
          [if percentile != null then "segment_prediction_percentile"]: percentile,
        },
      },
      [if insider.hasTime then "events"]: [insider.lyticsEvent],
    },
  ],
}
