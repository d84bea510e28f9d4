// A change, for POST /api/user/v1/upsert and a trigger with on = "change": the profile as it is now.
// It moves nobody in or out of an audience, and is no event: Lytics sends no time with it.
//
// What the profile does not have is null here, and is left out before sending, as is what Insider
// could not take: "t" becomes true, "12" a number, a phone number E.164, an opt-in that nobody
// stated is not sent.
local event = import "lytemplates.libsonnet";
local insider = import "insider.libsonnet";

{
  users: [
    {
      identifiers: insider.identifiers,
      attributes: {
        email: event.get("email"),
        phone_number: event.get("phone"),
        name: event.get("first_name"),
        surname: event.get("last_name"),
        gender: event.get("gender"),
        age: event.get("age"),
        language: event.get("user_language"),
        country: event.get("visit_country"),
        city: event.get("visit_city"),
        email_optin: event.get("consent_email_status"),
        gdpr_optin: event.get("consent_gdpr_status"),
        sms_optin: event.get("consent_sms_status"),
        whatsapp_optin: event.get("consent_whatsapp_status"),
        custom: {
          status: event.get("status"),
          score_consistency: insider.number("score_consistency"),
          score_frequency: insider.number("score_frequency"),
          score_intensity: insider.number("score_intensity"),
          score_maturity: insider.number("score_maturity"),
          score_momentum: insider.number("score_momentum"),
          score_propensity: insider.number("score_propensity"),
          score_quantity: insider.number("score_quantity"),
          score_recency: insider.number("score_recency"),
          score_volatility: insider.number("score_volatility"),
          segment_prediction_percentile: insider.number("segment_prediction_percentile"),
        },
      },
    },
  ],
}
