//! Whom a handler may talk to, and which names it may look up.
//!
//! A granted address or network is compared with the address that is used. A granted name is looked up by the host
//! whenever it is used: what the guest was told, or claims to have been told, does not count. Nobody else's name is
//! looked up for a guest, because a look-up is a message to whoever answers it. Listening is never allowed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gristmill_core::socket::{Protocol, SocketGrant};
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::Host as _;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, Network};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::p3::bindings::sockets::types::IpAddress;
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView as _};

use crate::provided::{WASI, WASI3};
use crate::replay::Scene;
use crate::state::State;

/// For how long the addresses of a name are kept: a guest that tries many of them does not make many look-ups.
const KEPT: Duration = Duration::from_secs(5);

/// How many names the guests of a component may look up in that time, all together.
const MAX_ASKED: u32 = 64;

/// The network, as far as a handler may use it.
#[derive(Debug)]
pub(crate) struct Sockets {
    grants: Vec<SocketGrant>,
    /// The addresses of granted names, and when they were looked up.
    names: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
    /// One look-up at a time: each holds a thread, and cannot be given up.
    looking_up: tokio::sync::Mutex<()>,
    /// When guests' own look-ups were counted from, and how many there were since.
    asked: Mutex<(Instant, u32)>,
}

impl Sockets {
    pub(crate) fn new(grants: Vec<SocketGrant>) -> Self {
        let asked = Mutex::new((Instant::now(), 0));
        Self { grants, names: Mutex::default(), looking_up: tokio::sync::Mutex::default(), asked }
    }

    /// Opens a context as far as is granted.
    pub(crate) fn open(self: &Arc<Self>, wasi: &mut WasiCtxBuilder, scene: Option<&Arc<Scene>>) {
        let grants_any = |protocol| self.grants.iter().any(|grant| grant.protocol == protocol);
        wasi.allow_tcp(grants_any(Protocol::Tcp)).allow_udp(grants_any(Protocol::Udp));
        // Which names: see `link`.
        wasi.allow_ip_name_lookup(!self.grants.is_empty());
        if self.grants.is_empty() {
            return;
        }
        if let Some(scene) = scene {
            let scene = Arc::clone(scene);
            wasi.socket_addr_check(move |_, _| {
                scene.refuse_socket();
                Box::pin(std::future::ready(false))
            });
        } else {
            let sockets = Arc::clone(self);
            wasi.socket_addr_check(move |address, usage| Box::pin(Arc::clone(&sockets).allows(address, usage)));
        }
    }

    async fn allows(self: Arc<Self>, address: SocketAddr, usage: SocketAddrUse) -> bool {
        let protocol = match usage {
            SocketAddrUse::TcpConnect => Protocol::Tcp,
            SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => Protocol::Udp,
            // Whoever talks first has any port of the system's choice.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                return address.ip().is_unspecified() && address.port() == 0;
            }
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => return false,
        };
        if self.grants.iter().any(|grant| grant.covers(protocol, address)) {
            return true;
        }
        for name in self.grants.iter().filter_map(|grant| grant.name_for(protocol, address)) {
            if self.addresses(name).await.contains(&address.ip().to_canonical()) {
                return true;
            }
        }
        false
    }

    /// The addresses that a name has now; none where it cannot be looked up.
    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        if let Some(addresses) = self.kept(name) {
            return addresses;
        }
        let _alone = self.looking_up.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(addresses) = self.kept(name) {
            return addresses;
        }
        let found = tokio::net::lookup_host((name, 0)).await;
        let addresses: Vec<_> = found.into_iter().flatten().map(|address| address.ip().to_canonical()).collect();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), (Instant::now(), addresses.clone()));
        addresses
    }

    fn kept(&self, name: &str) -> Option<Vec<IpAddr>> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(name).filter(|(at, _)| at.elapsed() < KEPT).map(|(_, addresses)| addresses.clone())
    }

    /// Counts a look-up of a guest's own. `false`: there were too many lately.
    fn may_ask(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.0.elapsed() >= KEPT {
            *asked = (Instant::now(), 0);
        }
        asked.1 += 1;
        asked.1 <= MAX_ASKED
    }

    /// Whether a guest may look up `name`. An address needs no looking up, but some standard libraries ask all the same.
    fn may_look_up(&self, name: &str) -> bool {
        let is_granted = |grant: &SocketGrant| grant.name().is_some_and(|granted| granted.eq_ignore_ascii_case(name));
        !self.grants.is_empty() && name.parse::<IpAddr>().is_ok() || self.grants.iter().any(is_granted)
    }
}

/// Links the look-up of names, in place of one that looks up any.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(&format!("wasi:sockets/ip-name-lookup@{WASI}"))?.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, State>, (network, name): (Resource<Network>, String)| {
            let state = store.data_mut();
            if !state.identity.surroundings.sockets().may_look_up(&name) {
                return Ok((Err(ErrorCode::AccessDenied),));
            }
            if let Some(scene) = &state.scene
                && name.parse::<IpAddr>().is_err()
            {
                scene.refuse_socket();
                return Ok((Err(ErrorCode::AccessDenied),));
            }
            if !state.identity.surroundings.sockets().may_ask() {
                return Ok((Err(ErrorCode::TemporaryResolverFailure),));
            }
            Ok((match state.sockets().resolve_addresses(network, name) {
                Ok(stream) => Ok(stream),
                Err(error) => Err(error.downcast()?),
            },))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for WASI 0.3.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(&format!("wasi:sockets/ip-name-lookup@{WASI3}"))?.func_wrap_concurrent(
        "resolve-addresses",
        |accessor: &Accessor<State>, (name,): (String,)| {
            let (sockets, scene) = accessor.with(|mut state| {
                let state = state.get();
                (state.identity.surroundings.shared_sockets(), state.scene.clone())
            });
            Box::pin(async move {
                if !sockets.may_look_up(&name) {
                    return Ok((Err(ip_name_lookup::ErrorCode::AccessDenied),));
                }
                if let Some(scene) = scene
                    && name.parse::<IpAddr>().is_err()
                {
                    scene.refuse_socket();
                    return Ok((Err(ip_name_lookup::ErrorCode::AccessDenied),));
                }
                let addresses = sockets.addresses(&name).await;
                if addresses.is_empty() {
                    return Ok((Err(ip_name_lookup::ErrorCode::NameUnresolvable),));
                }
                Ok((Ok(addresses.into_iter().map(IpAddress::from).collect::<Vec<_>>()),))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
