local event = (import "lytemplates.libsonnet");
local eventDetails = event.get("segment_events", "")[0];
{
"users": [
{
"insider_id": event.get("insider_id", ""),
"identifiers": {
"email": event.get("email", ""),
"custom": {
"lytics_id": event.get("_id", ""),
"lytics_last_uid": event.get("_uid", "")
}
},
"attributes": {
"email": event.get("email", ""),
"phone_number": event.get("phone", ""),
"name": event.get("first_name", ""),
"surname": event.get("last_name", ""),
"gender": event.get("gender", ""),
"age": event.get("age", ""),
"language": event.get("user_language", ""),
"country": event.get("visit_country", ""),
"city": event.get("visit_city", ""),
"email_optin": event.get("consent_email_status", ""),
"gdpr_optin": event.get("consent_gdpr_status", ""),
"sms_optin": event.get("consent_sms_status", ""),
"whatsapp_optin": event.get("consent_whatsapp_status", ""),
"custom": {
"status": event.get("status", ""),
"lytics_computed_attr": event.get("_segments", [""]),
"score_consistency": event.get("score_consistency", ""),
"score_frequency": event.get("score_frequency", ""),
"score_intensity": event.get("score_intensity", ""),
"score_maturity": event.get("score_maturity", ""),
"score_momentum": event.get("score_momentum", ""),
"score_propensity": event.get("score_propensity", ""),
"score_quantity": event.get("score_quantity", ""),
"score_recency": event.get("score_recency", ""),
"score_volatility": event.get("score_volatility", ""),
"lytics_content": event.get("lytics_content", ""),
"lytics_content_inferred": event.get("lytics_content_inferred", ""),
"lytics_rollup": event.get("lytics_rollup", ""),
"segment_prediction_percentile": event.get("segment_prediction_percentile", "")
}
},
"not_append": true,
"events": [
{
"event_name": "lytics_trigger",
"timestamp": eventDetails["enter"],
"event_params": {
"custom": {
"id": eventDetails["id"],
"audience": eventDetails["slug"],
"trigger": eventDetails["event"],
"origin": "Lytics"
}
}
}
]
}
]
}
