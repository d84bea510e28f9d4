function template(data) {
  var eventDetails = (data.segment_events || [{}])[0];
  return {
    "users": [
      {
        "identifiers": {
          "email": data.email || "",
          "custom": {
            "lytics_id": data._uid || ""
          }
        },
        "attributes": {
          "custom": {
            "partial": {
              "lytics_computed_attr": data._segments || [""]
            }
          }
        },
        "events": [
          {
            "event_name": "lytics_trigger",
            "timestamp": eventDetails.exit,
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
