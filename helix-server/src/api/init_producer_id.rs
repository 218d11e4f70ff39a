//! InitProducerId (key 22): an id for an idempotent producer. Transactional ids are not served.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::broker::Broker;

const NO_PRODUCER: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(super) async fn handle(broker: &Broker, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.as_ref().is_some_and(|id| id.is_empty()) {
        return failed(ResponseError::InvalidRequest);
    }
    // Who was a producer says both, who was none says neither.
    if (request.producer_id.0 == NO_PRODUCER) != (request.producer_epoch == NO_EPOCH) {
        return failed(ResponseError::InvalidRequest);
    }
    if request.transactional_id.is_some() {
        return failed(ResponseError::UnsupportedVersion);
    }
    // Without a transactional id a producer that asks again (KIP-360) simply becomes a new one, as in Kafka.
    match broker.producer_ids().next().await {
        Some(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        // Retried by every client.
        None => failed(ResponseError::CoordinatorLoadInProgress),
    }
}
