// The shipped entrance for whoever evaluates one event at a time: the event comes as `event`.
local event = std.extVar("event");
local profile = event.data;
local details = profile.segment_events[0];
local get(field) = std.get(profile, field);

{
  users: [
    std.prune({
      identifiers: { email: get("email"), custom: { lytics_id: get("_id") } },
      attributes: {
        email: get("email"),
        phone_number: get("phone"),
        name: get("first_name"),
        surname: get("last_name"),
        gender: get("gender"),
        age: get("age"),
        language: get("user_language"),
        country: get("visit_country"),
        city: get("visit_city"),
        email_optin: get("consent_email_status"),
        gdpr_optin: get("consent_gdpr_status"),
        sms_optin: get("consent_sms_status"),
        whatsapp_optin: get("consent_whatsapp_status"),
        custom: {
          lytics_computed_attr: [details.slug],
          status: get("status"),
          score_consistency: get("score_consistency"),
          score_frequency: get("score_frequency"),
          score_intensity: get("score_intensity"),
          score_maturity: get("score_maturity"),
          score_momentum: get("score_momentum"),
          score_propensity: get("score_propensity"),
          score_quantity: get("score_quantity"),
          score_recency: get("score_recency"),
          score_volatility: get("score_volatility"),
          segment_prediction_percentile: get("segment_prediction_percentile"),
        },
      },
      events: [
        {
          event_name: "lytics_trigger",
          timestamp: details.enter[:19] + "Z",
          event_params: {
            custom: {
              id: details.id,
              audience: details.slug,
              trigger: details.event,
              origin: "Lytics",
            },
          },
        },
      ],
    }),
  ],
}
