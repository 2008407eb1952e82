//! Paths, addresses: what is taken is written as it is read, and cannot leave its place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_kube_kms::adapters::{
    grpc::address::SocketAddress,
    vault::{
        address::VaultAddress,
        key_path::{KeyPath, MountPath, Namespace},
    },
};

fuzz_target!(|input: (u8, &str)| {
    let (shape, text) = input;
    let prefix = match shape % 6 {
        0 => "/",
        1 => "unix://",
        2 => "unix:///@",
        3 => "https://",
        4 => "transit/keys/",
        _ => "",
    };
    let text = format!("{prefix}{text}");
    if let Ok(path) = KeyPath::parse(&text) {
        stays(&path.to_string());
        assert_eq!(KeyPath::parse(&path.to_string()).as_ref(), Ok(&path));
    }
    if let Ok(mount) = MountPath::parse(&text) {
        stays(&mount.to_string());
        assert_eq!(MountPath::parse(&mount.to_string()).as_ref(), Ok(&mount));
    }
    if let Ok(namespace) = Namespace::parse(&text) {
        if namespace != *Namespace::ROOT {
            stays(namespace.as_str());
        }
    }
    if let Ok(address) = VaultAddress::parse(&text) {
        assert!(!address.to_string().contains(['@', '#', '?']), "{address}");
        assert_eq!(VaultAddress::parse(&address.to_string()).as_ref(), Ok(&address));
    }
    if let Ok(address) = SocketAddress::parse(&text) {
        assert_eq!(SocketAddress::parse(&address.to_string()).as_ref(), Ok(&address));
    }
});

/// A part of a request's path that cannot lead out of it.
fn stays(path: &str) {
    assert!(!path.contains(['%', '?', '#', '\\']) && path.is_ascii(), "{path}");
    assert!(path.split('/').all(|segment| !["", ".", ".."].contains(&segment)), "{path}");
}
