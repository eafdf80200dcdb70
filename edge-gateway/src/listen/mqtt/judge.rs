//! From a message to what goes into the spool: topic, fleet, admission.

use penstock_common::clock::Reading;
use penstock_common::telemetry::traces::traceparent;
use rumqttc::v5::mqttbytes::v5::Publish;

use super::config::Templates;
use super::topic::{Place, Template, is_fleet_name};
use crate::admit::{Admission, Admitter, Refusal, Request, Topic};
use crate::snapshot::Snapshots;
use crate::spool::entry::Entry;

/// What a message is without a content type: most publishers can't give one.
const CONTENT_TYPE_DEFAULT: &str = "application/json";

/// What became of a message's events.
#[derive(Debug)]
pub(super) struct Judgement {
    /// Its events, and what is to be stored of them.
    pub(super) admission: Admission,
    /// Why it would have been refused whole, by HTTP.
    pub(super) refusal: Option<Refusal>,
    /// Where that is answered, if there is something to say and a place to say it.
    pub(super) error_topic: Option<String>,
}

impl Judgement {
    /// Whether its publisher must hear of it.
    pub(super) fn is_rejection(&self) -> bool {
        self.refusal.is_some() || self.admission.accepted() < self.admission.outcomes.len()
    }
}

/// Judges messages.
pub(super) struct Judge {
    snapshots: Snapshots,
    fleet: String,
    templates: Templates,
}

impl Judge {
    /// `fleet` is that of topics that name none.
    pub(super) fn new(snapshots: Snapshots, fleet: &str, templates: Templates) -> Self {
        Self { snapshots, fleet: fleet.to_owned(), templates }
    }

    /// `traceparent` is what the events carry on.
    pub(super) fn judge(
        &self,
        publish: &Publish,
        received: Reading,
        traceparent: Option<String>,
    ) -> Judgement {
        let topic = String::from_utf8_lossy(&publish.topic);
        let place = self.templates.events.iter().find_map(|template| template.read(&topic));
        let given = publish.properties.as_ref();
        let content_type = given.and_then(|given| given.content_type.as_deref());
        let request = Request {
            content_type: Some(content_type.unwrap_or(CONTENT_TYPE_DEFAULT)),
            content_encoding: user_property(publish, "content-encoding"),
            received_at: received.at,
            is_clock_set: received.is_set,
            traceparent,
            topic: Some(Topic { name: &topic, device: place.and_then(|place| place.device) }),
            body: publish.payload.clone(),
        };
        let (admission, refusal) = match place {
            None => (self.admitter(None).keep_misplaced(&request, "a topic of mqtt.topics"), None),
            Some(Place { fleet: Some(fleet), .. }) if !is_fleet_name(fleet) => {
                let expected = "a fleet of 1 to 64 characters of A-Z a-z 0-9 . _ -";
                (self.admitter(None).keep_misplaced(&request, expected), None)
            }
            Some(place) => {
                let admitter = self.admitter(place.fleet);
                match admitter.admit(request.clone()) {
                    Ok(admission) => (admission, None),
                    // A retained message is cleared by one without a payload.
                    Err(_) if publish.payload.is_empty() => (Admission::default(), None),
                    Err(refusal) => (admitter.keep_refused(&request, &refusal), Some(refusal)),
                }
            }
        };
        let mut judgement = Judgement { admission, refusal, error_topic: None };
        if judgement.is_rejection() {
            judgement.error_topic = self.templates.errors.as_ref().and_then(|template| {
                self.error_topic(template, place.unwrap_or_default(), &judgement.admission)
            });
        }
        judgement
    }

    /// With the schemas of the present snapshot; `fleet` is that of the topic.
    fn admitter(&self, fleet: Option<&str>) -> Admitter {
        let schemas = self.snapshots.current().schemas.clone();
        Admitter::new(schemas, fleet.unwrap_or(&self.fleet).into())
    }

    /// The topic of the answer: of the device in the topic, or else in the event.
    fn error_topic(
        &self,
        template: &Template,
        place: Place<'_>,
        admission: &Admission,
    ) -> Option<String> {
        let in_event = || {
            admission.entries.iter().find_map(|entry| match entry {
                Entry::Event(event) => Some(event.device_id.as_str()),
                Entry::DeadLetter(letter) => letter.device_id.as_deref(),
            })
        };
        let fleet = place.fleet.or(Some(self.fleet.as_str()));
        template.fill(Place { fleet, device: place.device.or_else(in_event) })
    }
}

/// The trace context of a message.
pub(super) fn context(publish: &Publish) -> Option<String> {
    user_property(publish, "traceparent").and_then(traceparent)
}

fn user_property<'a>(publish: &'a Publish, name: &str) -> Option<&'a str> {
    let properties = &publish.properties.as_ref()?.user_properties;
    properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}
