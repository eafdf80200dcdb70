//! What is known about the certificate.

use prometheus::{IntCounter, IntGauge, Registry};

/// TLS's metrics.
#[derive(Clone)]
pub struct TlsMetrics {
    /// When the certificate ends, as Unix time.
    pub expiry: IntGauge,
    /// Certificates that took another's place.
    pub taken: IntCounter,
    /// Certificates that could not.
    pub refused: IntCounter,
    /// 1 while the files can't be used.
    pub faulty: IntGauge,
}

impl TlsMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            expiry: IntGauge::new(
                "penstock_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, as Unix time; 0: unknown, or no TLS",
            )?,
            taken: IntCounter::new(
                "penstock_tls_certificates_taken_total",
                "Certificates replaced without a restart",
            )?,
            refused: IntCounter::new(
                "penstock_tls_certificates_refused_total",
                "Certificates that could not be used",
            )?,
            faulty: IntGauge::new(
                "penstock_tls_faulty",
                "1 while the certificate's files can't be used and an older one holds",
            )?,
        };
        registry.register(Box::new(metrics.expiry.clone()))?;
        registry.register(Box::new(metrics.taken.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.faulty.clone()))?;
        Ok(metrics)
    }
}
