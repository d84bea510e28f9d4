local event = (import "lytemplates.libsonnet");
local eventDetails = event.get("segment_events", "")[0];
{
"users":\[
{
"identifiers":{
"email": event.get("email", ""),
"custom": {
"lytics_id": event.get("\_uid", "")
}
},
"attributes":{
"custom":{
partial:{
"lytics_computed_attr": event.get("_segments", [""])
}
}
},
"events": [
{
"event_name": "lytics_trigger",
"timestamp": eventDetails["exit"],
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
]
}
]
}
