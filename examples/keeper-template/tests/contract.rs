//! Runs the contract suite.

use std::sync::Arc;

use async_trait::async_trait;
use {{crate_name}}::{device::Device, keeper::DeviceKek};
use vault_kube_kms::{
    adapters::system::clock::SystemClock,
    ports::{clock::Clock, kek::Kek},
    testkit::Subject,
};

struct Held(Arc<Device>);

#[async_trait]
impl Subject for Held {
    fn kek(&self) -> Arc<dyn Kek> {
        Arc::new(DeviceKek::new(Arc::clone(&self.0)))
    }

    async fn rotate(&self) {
        self.0.make_key().expect("random bytes");
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::new())
    }
}

vault_kube_kms::kek_contract!({
    let device = Device::default();
    device.make_key().expect("random bytes");
    Held(Arc::new(device))
});
