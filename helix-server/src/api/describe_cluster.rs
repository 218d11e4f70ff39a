//! DescribeCluster (key 60): brokers and controller, for admin clients.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::operations;
use crate::broker::Broker;

/// The endpoint type that asks for brokers; the other one asks for KRaft controllers.
const ENDPOINT_BROKERS: i8 = 1;

pub(super) fn handle(
    broker: &Broker,
    request: &DescribeClusterRequest,
    version: i16,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type != ENDPOINT_BROKERS {
        let (code, message) = if request.endpoint_type == 2 {
            (ResponseError::MismatchedEndpointType, "this endpoint serves brokers, not controllers")
        } else {
            (ResponseError::UnsupportedEndpointType, "unknown endpoint type")
        };
        return DescribeClusterResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str(message)));
    }
    let image = broker.image();
    let brokers = image
        .brokers()
        .filter_map(|registered| {
            let fenced = !broker.is_alive(registered.node);
            (!fenced || request.include_fenced_brokers).then(|| {
                let out = DescribeClusterBroker::default()
                    .with_broker_id(BrokerId(registered.node.0))
                    .with_host(StrBytes::from_string(registered.host.clone()))
                    .with_port(i32::from(registered.port))
                    .with_rack(registered.rack.clone().map(StrBytes::from_string));
                if version >= 2 { out.with_is_fenced(fenced) } else { out }
            })
        })
        .collect();
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(broker.cluster_id().to_string()))
        .with_controller_id(BrokerId(broker.controller_node().0))
        .with_cluster_authorized_operations(operations::on_cluster(
            request.include_cluster_authorized_operations,
        ))
        .with_brokers(brokers)
}
