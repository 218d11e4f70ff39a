//! DeleteGroups (key 42): forgets consumer groups without members, and what they had committed.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::errors;
use super::mentions::{Mention, mentions};
use crate::broker::Broker;
use crate::coordinator::CoordinatorError;
use crate::coordinator::groups::GroupCall;

pub(super) async fn handle(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let limit = Duration::from_millis(broker.config().offsets_commit_timeout_ms);
    let mut results = Vec::with_capacity(request.groups_names.len());
    let named = mentions(&request.groups_names);
    for (id, mention) in request.groups_names.iter().zip(named) {
        // A group that is named again has its answer.
        if mention == Mention::Again {
            continue;
        }
        let asked = broker.coordinators().ask(broker, id, |reply| GroupCall::Delete(id.to_string(), reply));
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
