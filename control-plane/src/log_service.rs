//! Levels of logs, as administrators set them.

use std::sync::Arc;

use proxyxai_core::{
    order::{LogLevel, level_now},
    ports::Clock,
};
use proxyxai_proto::{
    admin::v1::{
        GetLogLevelRequest, GetLogLevelResponse, SetLogLevelRequest, SetLogLevelResponse,
        log_service_server::LogService,
    },
    store::v1::LogWish,
};
use tonic::{Request, Response, Status};

use crate::{
    auth,
    orders::{Orders, Wishes},
    status::Fault,
};

/// Longest time that a level may be wanted for, in milliseconds.
const LONGEST_MS: u64 = 31 * 24 * 3_600_000;

pub(crate) struct LogServer {
    pub(crate) orders: Arc<Orders>,
    pub(crate) wishes: Arc<Wishes>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl LogService for LogServer {
    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let level = LogLevel::from_proto(known(request.level)?);
        let until_unix_ms = match (level, request.for_ms) {
            (None, _) | (_, 0) => 0,
            (Some(_), for_ms) if for_ms > LONGEST_MS => {
                let why = "a level of a log is set for 31 days at most, or without end";
                return Err(Fault::field("for_ms", why).into());
            }
            (Some(_), for_ms) => {
                let for_ms = i64::try_from(for_ms).unwrap_or(i64::MAX);
                self.clock.unix_ms().saturating_add(for_ms)
            }
        };
        let wish = LogWish {
            level: LogLevel::to_proto(level).into(),
            until_unix_ms,
        };
        let action = "SetLogLevel";
        if request.node.is_empty() {
            self.wishes.of_log(&caller, action, &wish).await?;
        } else {
            let change = |row: &mut proxyxai_proto::store::v1::RosterRow| {
                row.log = level.is_some().then_some(wish);
            };
            let node = &request.node;
            self.wishes.of_node(&caller, action, node, change).await?;
        }
        Ok(Response::new(SetLogLevelResponse { until_unix_ms }))
    }

    async fn get_log_level(
        &self,
        _: Request<GetLogLevelRequest>,
    ) -> Result<Response<GetLogLevelResponse>, Status> {
        let wish = self.orders.log();
        let (level, _) = level_now(wish.as_ref(), self.clock.unix_ms());
        let until = wish.filter(|_| level.is_some());
        Ok(Response::new(GetLogLevelResponse {
            level: LogLevel::to_proto(level).into(),
            until_unix_ms: until.map_or(0, |wish| wish.until_unix_ms),
        }))
    }
}

/// A level of this program: one that it does not know must not become that of the settings.
fn known(level: i32) -> Result<proxyxai_proto::config::v1::LogLevel, Fault> {
    level
        .try_into()
        .map_err(|_| Fault::field("level", "a level is error, warn, info, debug or trace"))
}
