//! The devices of one's own account through HTTP on real nodes: the list, names, verification, removal, the notice before it.

mod list;
mod removal;
pub mod silence;

use sotto_client::protocol::DeviceId;
use sotto_client::protocol::devices::OwnDevice;
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::{Error, Rest};

pub fn code<T>(result: Result<T, Error>) -> ErrorCode {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => error.code().unwrap_or_else(|| panic!("no problem: {error}")),
    }
}

/// A device as its owner sees it from this one.
pub async fn seen(rest: &Rest, device: DeviceId) -> OwnDevice {
    let devices = rest.own_devices().await.unwrap();
    devices.into_iter().find(|one| one.device_id == device).unwrap()
}
