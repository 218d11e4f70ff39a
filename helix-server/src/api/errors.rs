//! The one mapping from Helix's errors to Kafka's codes, and texts clients show.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::broker::delete_records::DeleteRecordsError;
use crate::broker::produce::AppendError;
use crate::controller::SubmitError;
use crate::controller::commands::CommandError;
use crate::coordinator::CoordinatorError;
use crate::coordinator::groups::call::GroupError;

/// Kafka's code for success.
pub(crate) const NONE: i16 = 0;

/// An error as a response carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: i16,
    pub(crate) message: Option<String>,
}

impl ApiError {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { code: error.code(), message: Some(message.into()) }
    }

    pub(crate) fn text(&self) -> Option<StrBytes> {
        self.message.clone().map(StrBytes::from_string)
    }
}

impl From<&AppendError> for ApiError {
    fn from(error: &AppendError) -> Self {
        let code = match error {
            AppendError::NotLeader => ResponseError::NotLeaderOrFollower.code(),
            AppendError::UnknownPartition => ResponseError::UnknownTopicOrPartition.code(),
            AppendError::UnknownTopicId => ResponseError::UnknownTopicId.code(),
            AppendError::InternalTopic => ResponseError::InvalidTopicException.code(),
            AppendError::Batch(batch) => batch.kafka_error().code(),
            AppendError::Sequence(sequence) => sequence.code(),
            // The only code that every client retries without a metadata storm and takes for "nothing appended".
            AppendError::Overloaded | AppendError::NotEnoughReplicas { .. } => {
                ResponseError::NotEnoughReplicas.code()
            }
            AppendError::DiskFull => ResponseError::KafkaStorageError.code(),
            AppendError::Timeout => ResponseError::RequestTimedOut.code(),
            AppendError::InvalidRequiredAcks => ResponseError::InvalidRequiredAcks.code(),
            AppendError::TransactionsUnsupported => ResponseError::InvalidTxnState.code(),
        };
        Self { code, message: Some(error.to_string()) }
    }
}

impl From<&DeleteRecordsError> for ResponseError {
    fn from(error: &DeleteRecordsError) -> Self {
        match error {
            DeleteRecordsError::InternalTopic => Self::InvalidTopicException,
            DeleteRecordsError::Policy => Self::PolicyViolation,
            DeleteRecordsError::UnknownPartition => Self::UnknownTopicOrPartition,
            DeleteRecordsError::NotLeader => Self::NotLeaderOrFollower,
            DeleteRecordsError::OutOfRange => Self::OffsetOutOfRange,
            DeleteRecordsError::Timeout { .. } => Self::RequestTimedOut,
        }
    }
}

impl From<&SubmitError> for ApiError {
    fn from(error: &SubmitError) -> Self {
        let code = match error {
            SubmitError::Refused(refused) => command_code(refused).code(),
            SubmitError::Timeout => ResponseError::RequestTimedOut.code(),
            SubmitError::ShuttingDown => ResponseError::NotController.code(),
        };
        Self { code, message: Some(error.to_string()) }
    }
}

impl From<CoordinatorError> for ResponseError {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::NotCoordinator => Self::NotCoordinator,
            CoordinatorError::Loading => Self::CoordinatorLoadInProgress,
            CoordinatorError::NotAvailable => Self::CoordinatorNotAvailable,
        }
    }
}

impl From<&GroupError> for ResponseError {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::InvalidGroupId => Self::InvalidGroupId,
            GroupError::InvalidSessionTimeout => Self::InvalidSessionTimeout,
            GroupError::UnknownMemberId => Self::UnknownMemberId,
            GroupError::IllegalGeneration => Self::IllegalGeneration,
            GroupError::RebalanceInProgress => Self::RebalanceInProgress,
            GroupError::InconsistentGroupProtocol => Self::InconsistentGroupProtocol,
            GroupError::MemberIdRequired => Self::MemberIdRequired,
            GroupError::FencedInstanceId => Self::FencedInstanceId,
            GroupError::GroupMaxSizeReached => Self::GroupMaxSizeReached,
            GroupError::NonEmptyGroup => Self::NonEmptyGroup,
            GroupError::GroupIdNotFound => Self::GroupIdNotFound,
            GroupError::GroupSubscribedToTopic => Self::GroupSubscribedToTopic,
            GroupError::OffsetMetadataTooLarge => Self::OffsetMetadataTooLarge,
            GroupError::InvalidRequest | GroupError::TooManyProtocols { .. } => Self::InvalidRequest,
            // As in Kafka since 4.0; INVALID_COMMIT_OFFSET_SIZE is of the time before.
            GroupError::TooLarge(_) => Self::UnknownServerError,
            // Nothing was stored: found again, the coordinator may be able to.
            GroupError::NotStored(_) => Self::CoordinatorNotAvailable,
        }
    }
}

fn command_code(error: &CommandError) -> ResponseError {
    match error {
        CommandError::TopicExists { .. } => ResponseError::TopicAlreadyExists,
        CommandError::UnknownTopic => ResponseError::UnknownTopicOrPartition,
        CommandError::NotAnIncrease { .. }
        | CommandError::InvalidPartitions { .. }
        | CommandError::TooManyPartitions { .. } => ResponseError::InvalidPartitions,
        CommandError::InvalidReplicationFactor { .. } => ResponseError::InvalidReplicationFactor,
        CommandError::InvalidAssignment { .. } => ResponseError::InvalidReplicaAssignment,
        CommandError::StaleIncarnation { .. } | CommandError::DiskRetired { .. } => {
            ResponseError::StaleBrokerEpoch
        }
    }
}
