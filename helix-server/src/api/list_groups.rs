//! ListGroups (key 16): the consumer groups that this node coordinates.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;

/// First version that tells the state (KIP-518).
const STATE_FROM: i16 = 4;
/// First version that tells the type (KIP-848).
const TYPE_FROM: i16 = 5;
/// The only type of groups that there is.
const CLASSIC: &str = "classic";

pub(super) async fn handle(broker: &Broker, request: ListGroupsRequest, version: i16) -> ListGroupsResponse {
    let listed = match broker.coordinators().ask_all(GroupCall::List).await {
        Ok(listed) => listed,
        Err(error) => {
            return ListGroupsResponse::default().with_error_code(ResponseError::from(error).code());
        }
    };
    // Filters are taken in any case of letters, as in Kafka.
    let passes = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let groups = listed
        .into_iter()
        .flatten()
        .filter(|group| passes(&request.states_filter, group.state) && passes(&request.types_filter, CLASSIC))
        .map(|group| {
            let mut out = ListedGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(group.id)))
                .with_protocol_type(StrBytes::from_string(group.protocol_type));
            if version >= STATE_FROM {
                out.group_state = StrBytes::from_static_str(group.state);
            }
            if version >= TYPE_FROM {
                out.group_type = StrBytes::from_static_str(CLASSIC);
            }
            out
        });
    ListGroupsResponse::default().with_groups(groups.collect())
}
