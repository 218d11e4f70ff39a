//! DeleteGroups (key 42): forgets consumer groups without members, and what they had committed.

use std::collections::HashSet;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::errors;
use crate::broker::Broker;
use crate::coordinator::CoordinatorError;
use crate::coordinator::groups::GroupCall;

pub(super) async fn handle(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let limit = Duration::from_millis(broker.config().offsets_commit_timeout_ms);
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in each_once(request.groups_names) {
        let asked = broker.coordinators().ask(broker, &id, |reply| GroupCall::Delete(id.to_string(), reply));
        let answer = tokio::time::timeout(limit, asked).await.unwrap_or(Err(CoordinatorError::NotAvailable));
        let code = match answer {
            Ok(Ok(())) => errors::NONE,
            Ok(Err(error)) => ResponseError::from(&error).code(),
            Err(error) => ResponseError::from(error).code(),
        };
        results.push(DeletableGroupResult::default().with_group_id(id.clone()).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}

/// Groups in the order in which they are named first.
pub(super) fn each_once(ids: Vec<GroupId>) -> Vec<GroupId> {
    let mut seen = HashSet::new();
    ids.into_iter().filter(|id| seen.insert(id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn what_is_named_often_is_asked_for_once() {
        let ids = |ids: &[&'static str]| -> Vec<GroupId> {
            ids.iter().map(|id| GroupId(StrBytes::from_static_str(id))).collect()
        };
        assert_eq!(each_once(ids(&["b", "a", "b", "c", "a"])), ids(&["b", "a", "c"]));
    }
}
