//! Paths, addresses, redirections and time-outs: what is taken is written as it is read, and cannot
//! leave its place.
#![no_main]

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use url::Url;
use vault_kube_kms::adapters::{
    grpc::{address::SocketAddress, deadline},
    vault::{
        address::VaultAddress,
        key_path::{KeyPath, MountPath, Namespace},
    },
};

fuzz_target!(|input: (u8, &str)| {
    let (shape, text) = input;
    redirection(text);
    timeout(text);
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

/// What is taken for this server is this server for another parser too.
fn redirection(location: &str) {
    for server in ["https://vault:8200", "http://10.0.0.1", "https://[::1]:443"] {
        let address = VaultAddress::parse(server).expect("an address");
        for location in [location.to_owned(), format!("{server}{location}")] {
            if address.is_origin_of(&location) {
                let url = Url::parse(&location).expect("a URL");
                assert_eq!(url.origin(), Url::parse(server).expect("a URL").origin(), "{location}");
                assert!(url.username().is_empty() && url.password().is_none(), "{location}");
            }
        }
    }
}

/// Whatever a caller asks for, a call has a time that ends.
fn timeout(text: &str) {
    let Ok(value) = HeaderValue::from_str(text) else { return };
    let budget =
        deadline::budget(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value)]));
    assert!(budget < Duration::from_secs(30), "{text:?}");
}

/// A part of a request's path that cannot lead out of it.
fn stays(path: &str) {
    assert!(!path.contains(['%', '?', '#', '\\']) && path.is_ascii(), "{path}");
    assert!(path.split('/').all(|segment| !["", ".", ".."].contains(&segment)), "{path}");
}
