//! Settings of `--keeper=device`.

use std::{error::Error, sync::Arc};

use vault_kube_kms::prelude::*;

use crate::{device, keeper::DeviceKeeper};

const FLAGS: &[Group] = &[(
    "Device",
    &[flag(
        "device-keys",
        Takes::Value("N"),
        "1",
        "Number of keys that the device has at the start, 1 to 9",
    )],
)];

/// `--keeper=device`.
#[derive(Debug)]
pub struct Device;

impl KeeperKind for Device {
    fn name(&self) -> &'static str {
        "device"
    }

    fn flags(&self) -> &'static [Group] {
        FLAGS
    }

    fn read(&self, reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
        let keys = reading.parsed("device-keys", |text| {
            let number = text.parse::<u8>().ok().filter(|number| (1..=9).contains(number));
            number.ok_or_else(|| format!("{text:?} is not a number from 1 to 9"))
        })?;
        Some(Arc::new(DeviceSettings { keys }))
    }
}

#[derive(Debug)]
struct DeviceSettings {
    keys: u8,
}

impl KeeperSettings for DeviceSettings {
    fn connection(&self) -> String {
        "device".to_owned()
    }

    fn needs(&self, _: &mut Needs) {
        // needs.connect("device.example", 443);
    }

    fn open(&self, _: &Surroundings) -> Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>> {
        let device = device::Device::default();
        for _ in 0..self.keys {
            device.make_key().map_err(|_unspecified| "the system gives no random bytes")?;
        }
        Ok(Arc::new(DeviceKeeper::new(Arc::new(device))))
    }
}
