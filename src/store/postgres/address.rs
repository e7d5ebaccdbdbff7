//! The PostgreSQL connection string (`store.url`): its servers and how to reach each.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::pg_error::PgError;
use super::socket::StepDeadline;
use crate::config::is_loopback;
use crate::error::{Error, Result, Status};
use crate::lookup;
use crate::secret::Secret;

/// A parsed `store.url`.
pub struct Address {
    /// The servers in the URL's order; at least one.
    pub servers: Vec<Server>,
    /// The database in messages: its name and servers, without the password.
    pub name: String,
}

pub struct Server {
    pub addr: HostAddr,
    /// The driver's configuration, including the TLS mode.
    pub config: Config,
    /// The server in messages.
    pub name: String,
}

pub enum HostAddr {
    /// A host name or IP address, and a port.
    Tcp(String, u16),
    // Elsewhere such an address is an error of the configuration.
    #[cfg_attr(not(unix), allow(dead_code))]
    Unix(PathBuf),
}

const ENCODE: &str = "percent-encode special characters, such as @ or / in a password";

impl Address {
    /// Parses a URL of the form
    /// `postgres://user:password@host[:port][,host[:port]…]/database[?option=value&…]`.
    pub fn read(url: &Secret) -> Result<Address> {
        let place = url.expose().split('?').next().unwrap_or_default();
        if place.matches('@').count() > 1 {
            return Err(ambiguous());
        }
        let (url, sslmode) = without_sslmode(url.expose())?;
        let mut config: Config = url.expose().parse().map_err(|_| {
            refused("it is not a URL of the form postgres://user:password@host:port/database")
                .with_help(ENCODE)
        })?;
        if config.get_user().is_none() {
            return Err(refused("it names no user"));
        }
        if config.get_application_name().is_none() {
            config.application_name("ghl-oauth");
        }
        let ports = config.get_ports();
        let port = |index: usize| *ports.get(index).or(ports.first()).unwrap_or(&5432);
        let addrs: Vec<HostAddr> = config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(index, host)| addr(host, port(index)))
            .collect::<Result<_>>()?;
        if addrs.is_empty() {
            return Err(refused("it names no host"));
        }
        let mut servers = Vec::new();
        for addr in addrs {
            let mut config = config.clone();
            let mode = addr.ssl_mode(sslmode);
            if sslmode == Some("disable") && !addr.is_local() {
                log::warn!(
                    "store.url sets sslmode=disable: tokens are sent to {} unencrypted",
                    addr.name()
                );
            }
            config.ssl_mode(mode);
            servers.push(Server { name: addr.name(), config, addr });
        }
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        Ok(Address { name: format!("{database} on {}", names.join(", ")), servers })
    }
}

/// Splits the `sslmode` from the URL, because libpq knows modes that tokio-postgres rejects.
fn without_sslmode(url: &str) -> Result<(Secret, Option<&'static str>)> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(refused("it must begin with postgres:// or postgresql://"));
    }
    let Some((base, query)) = url.split_once('?') else {
        return Ok((Secret::new(url.to_owned()), None));
    };
    let (mut sslmode, mut rest) = (None, Vec::new());
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("sslmode", mode) => {
                let known = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
                let known = known.into_iter().find(|known| *known == mode);
                sslmode = Some(known.ok_or_else(|| {
                    refused(
                        "its sslmode must be disable, allow, prefer, require, verify-ca or \
                         verify-full",
                    )
                })?);
            }
            ("sslrootcert", _) => {
                return Err(refused("it must not set sslrootcert; set store.caBundlePath instead"));
            }
            _ => rest.push(option),
        }
    }
    Ok((Secret::new(format!("{base}?{}", rest.join("&"))), sslmode))
}

fn addr(host: &Host, port: u16) -> Result<HostAddr> {
    Ok(match host {
        Host::Tcp(host) if host.contains('@') => return Err(ambiguous()),
        // The folder of a Unix socket is a host name to tokio-postgres on other systems.
        Host::Tcp(host) if host.starts_with('/') => {
            return Err(refused("this system has no Unix sockets")
                .with_help("name the server by a host name or an IP address"));
        }
        Host::Tcp(host) => {
            HostAddr::Tcp(host.trim_start_matches('[').trim_end_matches(']').to_owned(), port)
        }
        // This variant of tokio-postgres exists on Unix only.
        #[cfg(unix)]
        Host::Unix(folder) => HostAddr::Unix(folder.join(format!(".s.PGSQL.{port}"))),
    })
}

impl HostAddr {
    fn name(&self) -> String {
        match self {
            HostAddr::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            HostAddr::Tcp(host, port) => format!("{host}:{port}"),
            HostAddr::Unix(path) => path.display().to_string(),
        }
    }

    /// Whether connections to it stay on this machine.
    fn is_local(&self) -> bool {
        match self {
            HostAddr::Tcp(host, _) => is_loopback(host),
            HostAddr::Unix(_) => true,
        }
    }

    /// TLS is required for other machines unless `sslmode=disable`, and for this machine only if
    /// the mode demands it.
    fn ssl_mode(&self, wanted: Option<&str>) -> SslMode {
        match (self, wanted) {
            (HostAddr::Unix(_), _) | (_, Some("disable")) => SslMode::Disable,
            (_, None | Some("allow" | "prefer")) if self.is_local() => SslMode::Disable,
            _ => SslMode::Require,
        }
    }

    /// The host name for certificate verification.
    pub fn host(&self) -> &str {
        match self {
            HostAddr::Tcp(host, _) => host,
            HostAddr::Unix(_) => "",
        }
    }

    /// Resolves the IP addresses of a TCP server.
    pub fn addresses(&self, until: &StepDeadline) -> Result<Vec<SocketAddr>, PgError> {
        let HostAddr::Tcp(host, port) = self else { return Ok(Vec::new()) };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, *port)]);
        }
        lookup::addresses(host, *port, || until.left())
    }

    /// The path of a Unix socket server.
    pub fn file(&self) -> Option<&Path> {
        match self {
            HostAddr::Tcp(..) => None,
            HostAddr::Unix(path) => Some(path),
        }
    }
}

/// The rest of a password with an @ is no host or database, and no message may quote it.
fn ambiguous() -> Error {
    refused("it has more than one @").with_help(ENCODE)
}

fn refused(why: &str) -> Error {
    Error::new(Status::Config, format!("store.url cannot be used: {why}"))
        .with_parameter("store.url")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address> {
        Address::read(&Secret::new(url.to_owned()))
    }

    #[test]
    fn remote_connection_needs_tls_unless_disabled() {
        for (url, mode) in [
            ("postgres://u:p@db.example/app", SslMode::Require),
            ("postgres://u:p@db.example/app?sslmode=prefer", SslMode::Require),
            ("postgres://u:p@db.example/app?sslmode=allow&connect_timeout=3", SslMode::Require),
            ("postgres://u:p@10.0.0.1/app?sslmode=verify-full", SslMode::Require),
            ("postgres://u:p@db.example/app?sslmode=disable", SslMode::Disable),
            ("postgres://u:p@127.0.0.1/app", SslMode::Disable),
            ("postgres://u:p@[::1]:5433/app?sslmode=prefer", SslMode::Disable),
            ("postgres://u:p@localhost/app?sslmode=require", SslMode::Require),
            #[cfg(unix)]
            ("postgresql://u@%2Frun%2Fpostgresql/app", SslMode::Disable),
        ] {
            assert_eq!(read(url).unwrap().servers[0].config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[cfg(not(unix))]
    #[test]
    fn unix_socket_is_refused_on_other_systems() {
        for url in ["postgresql://u@%2Frun%2Fpostgresql/app", "postgres://u@/app?host=/run"] {
            let error = read(url).err().unwrap();
            assert_eq!(error.status(), Status::Config, "{url}");
            assert!(error.to_string().contains("no Unix sockets"), "{error}");
        }
    }

    #[test]
    fn every_host_is_parsed_with_its_port() {
        let address = read("postgres://u:secret@one:6001,two:6002/app").unwrap();
        assert_eq!(address.name, "app on one:6001, two:6002");
        let address = read("postgres://u:secret@one,two/app").unwrap();
        assert_eq!(address.name, "app on one:5432, two:5432");
    }

    #[test]
    fn unusable_url_is_not_quoted() {
        for url in [
            "host=localhost user=u password=hunter2",
            "mysql://u:hunter2@db/app",
            "postgres://u:hunter2@db:port/app",
            "postgres://u:hunter2@db/app?sslmode=maybe",
            "postgres://u:hunter2@db/app?sslrootcert=ca.pem",
            "postgres://u:hunter2@db/app?hunter2=hunter2",
            "postgres://db/app?password=hunter2",
            "postgres://u:hunter2@/app",
            "postgres://u:p@hunter2@db/app",
            "postgres://u:p@one,hunter2@two/app",
            "postgres://u:p@one/hunter2@two/app",
            "postgres://u:p?p@hunter2@two/app",
        ] {
            let error = read(url).err().unwrap();
            assert_eq!(
                (error.status(), error.parameter()),
                (Status::Config, Some("store.url")),
                "{url}"
            );
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
