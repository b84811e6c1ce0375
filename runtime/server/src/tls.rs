//! Which cryptography TLS uses in this process.

/// Makes *ring* what every client in this process uses that is not told otherwise. Without it, none can be made.
pub fn use_ring() {
    // Whoever was first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
