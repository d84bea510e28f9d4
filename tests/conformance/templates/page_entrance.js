function template(data) {
  var eventDetails = (data.segment_events || [{}])[0];
  return {
    "users": [
      {
        "insider_id": data.insider_id || "",
        "identifiers": {
          "email": data.email || "",
          "custom": {
            "lytics_id": data._id || "",
            "lytics_last_uid": data._uid || ""
          }
        },
        "attributes": {
          "email": data.email || "",
          "phone_number": data.phone || "",
          "name": data.first_name || "",
          "surname": data.last_name || "",
          "gender": data.gender || "",
          "age": data.age || "",
          "language": data.user_language || "",
          "country": data.visit_country || "",
          "city": data.visit_city || "",
          "email_optin": data.consent_email_status || "",
          "gdpr_optin": data.consent_gdpr_status || "",
          "sms_optin": data.consent_sms_status || "",
          "whatsapp_optin": data.consent_whatsapp_status || "",
          "custom": {
            "status": data.status || "",
            "lytics_computed_attr": data._segments || [""],
            "score_consistency": data.score_consistency || "",
            "score_frequency": data.score_frequency || "",
            "score_intensity": data.score_intensity || "",
            "score_maturity": data.score_maturity || "",
            "score_momentum": data.score_momentum || "",
            "score_propensity": data.score_propensity || "",
            "score_quantity": data.score_quantity || "",
            "score_recency": data.score_recency || "",
            "score_volatility": data.score_volatility || "",
            "lytics_content": data.lytics_content || "",
            "lytics_content_inferred": data.lytics_content_inferred || "",
            "lytics_rollup": data.lytics_rollup || "",
            "segment_prediction_percentile": data.segment_prediction_percentile || ""
          }
        },
        "not_append": true,
        "events": [
          {
            "event_name": "lytics_trigger",
            "timestamp": eventDetails.enter,
            "event_params": {
              "custom": {
                "id": eventDetails.id,
                "audience": eventDetails.slug,
                "trigger": eventDetails.event,
                "origin": "Lytics"
              }
            }
          }
        ]
      }
    ]
  };
}
