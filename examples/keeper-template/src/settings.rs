//! Settings of `--keeper=device`.

use std::sync::Arc;

use vault_kube_kms::prelude::*;

use crate::{device::Device, keeper::DeviceKek};

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
pub const DEVICE: KeeperKind = KeeperKind::new("device", FLAGS, read);

fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    let keys = reading.parsed("device-keys", |text| {
        let number = text.parse::<u8>().ok().filter(|number| (1..=9).contains(number));
        number.ok_or_else(|| format!("{text:?} is not a number from 1 to 9"))
    })?;
    Some(Arc::new(DeviceSettings { keys }))
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

    fn open(&self, _: &Surroundings) -> Opened {
        let device = Device::default();
        for _ in 0..self.keys {
            device.make_key().map_err(|_unspecified| "the system gives no random bytes")?;
        }
        // Replace this by the name of the key, such as the address of the device and a label.
        let lineage = Lineage::of_place("device", &["key"]);
        Ok(PlainKeeper::of(DeviceKek::new(Arc::new(device)), lineage))
    }
}
