//! ListGroups (key 16): the consumer groups that this node coordinates.

use std::collections::HashSet;

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
    let (states, types) = (Filter::of(&request.states_filter), Filter::of(&request.types_filter));
    let groups =
        listed.into_iter().flatten().filter(|group| states.passes(group.state) && types.passes(CLASSIC)).map(
            |group| {
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
            },
        );
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Words of which one is wanted, in any case of letters, as in Kafka. No words want everything.
struct Filter(HashSet<String>);

impl Filter {
    fn of(words: &[StrBytes]) -> Self {
        Self(words.iter().map(|word| word.to_ascii_lowercase()).collect())
    }

    fn passes(&self, value: &str) -> bool {
        self.0.is_empty() || self.0.contains(&value.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_words_in_any_case_and_none_take_everything() {
        let filter = Filter::of(&["sTABLE", "Dead"].map(StrBytes::from_static_str));
        assert!(filter.passes("Stable") && filter.passes("Dead") && !filter.passes("Empty"));
        assert!(Filter::of(&[]).passes("Empty"));
    }
}
