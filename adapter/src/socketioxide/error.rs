//! Why the cluster could not do what socketioxide asked for.

use crate::{RequestCause, RequestError};
use socketioxide_core::adapter::errors::AdapterError;
use thiserror::Error;

/// Why the cluster could not do what socketioxide asked for. What other servers were told is never a reason: they
/// are told after it was done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Not all servers answered. What did arrive is not passed off as everything; the methods of
    /// [`Adapter`](crate::Adapter) give it.
    #[error("{cause}, {received} other servers answered")]
    Incomplete {
        /// Why it ended.
        cause: RequestCause,
        /// How many other servers answered.
        received: usize,
        /// How many were to answer; unknown if Redis could not be asked.
        expected: Option<usize>,
    },
    /// Redis could not be asked how many servers there are.
    #[error("the servers could not be counted")]
    Uncounted,
}

impl ClusterError {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            ClusterError::Incomplete { cause, .. } => cause.kind(),
            ClusterError::Uncounted => "uncounted",
        }
    }
}

impl<T> From<RequestError<T>> for ClusterError {
    fn from(error: RequestError<T>) -> Self {
        let RequestError { cause, received, expected, arrived: _ } = error;
        ClusterError::Incomplete { cause, received, expected }
    }
}

impl From<ClusterError> for AdapterError {
    fn from(error: ClusterError) -> Self {
        AdapterError(Box::new(error))
    }
}
