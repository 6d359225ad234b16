//! An authority that is kept in a directory, with the certificates that it made.
//!
//! ```text
//! ca.pem              whom members and clients believe: the authority, and while it is replaced the one before, too
//! ca.key              its key: whoever has it can be anybody. It belongs on no member
//! node-<id>.pem/.key  a member's certificate and key
//! client-<name>.pem/.key
//! ```
//!
//! Keys are readable by their owner alone. Nothing is ever overwritten, but by what renews or replaces it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use graft_services::identity::{Identity, Role, Who};

use super::TlsError;
use super::authority::Authority;
use super::certificate::{Certificate, chain};
use super::endpoint::Endpoint;
use super::material::{Names, Source, read};

/// An authority and where it is kept.
#[derive(Debug)]
pub struct Depot {
    directory: PathBuf,
    authority: Authority,
}

/// The files of one certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// The key of the authority that is about to take over.
const CA_KEY_NEXT: &str = "ca.key.next";

impl Depot {
    /// Makes an authority for the cluster of this name, and the directory if need be.
    ///
    /// # Errors
    /// If there is one already, if the name cannot be a cluster's, or if the files cannot be written.
    pub fn create(directory: &Path, cluster: &str) -> Result<Self, TlsError> {
        let authority = Authority::new(cluster)?;
        make_directory(directory)?;
        let depot = Self { directory: directory.to_owned(), authority };
        // The key first: with it alone nothing can be done, and without it the certificate is of no use.
        write_new(&depot.path(CA_KEY), depot.authority.key_pem().as_bytes(), Access::Secret)?;
        write_new(&depot.path(CA_CERT), depot.authority.trusted().as_bytes(), Access::Public)?;
        Ok(depot)
    }

    /// The authority that is kept there.
    ///
    /// # Errors
    /// If there is none, or its files do not fit one another; the words name the file.
    pub fn load(directory: &Path) -> Result<Self, TlsError> {
        let (cert, key) = (directory.join(CA_CERT), directory.join(CA_KEY));
        if !cert.exists() && !key.exists() {
            return Err(TlsError::new(format!(
                "there is no authority in {}: make one with `graft tls init CLUSTER`, or name its directory with --dir",
                directory.display()
            )));
        }
        let open = |key: &Path| {
            Authority::from_pem(&text(&cert, "ca")?, &text(key, "key")?)
                .map_err(|error| TlsError::new(format!("{} and {}: {error}", cert.display(), key.display())))
        };
        let next = directory.join(CA_KEY_NEXT);
        if next.exists()
            && let Ok(authority) = open(&next)
        {
            // A stop amid `rotate`.
            fs::rename(&next, &key).map_err(|error| failed(&key, &error))?;
            return Ok(Self { directory: directory.to_owned(), authority });
        }
        Ok(Self { directory: directory.to_owned(), authority: open(&key)? })
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        self.authority.cluster()
    }

    /// Whom members and clients are to believe.
    pub fn ca(&self) -> PathBuf {
        self.path(CA_CERT)
    }

    /// A certificate for the member `id`. One that is there already, and can be used, is left as it is.
    pub fn node(&self, id: &str) -> Result<Files, TlsError> {
        self.issue(&self.authority.node_identity(id)?)
    }

    /// A certificate for a client. One that is there already, and can be used, is left as it is.
    pub fn client(&self, name: &str, role: Role) -> Result<Files, TlsError> {
        self.issue(&self.authority.client_identity(name, role)?)
    }

    fn issue(&self, identity: &Identity) -> Result<Files, TlsError> {
        let files = self.files(identity);
        if files.cert.exists() || files.key.exists() {
            return same(files, identity);
        }
        let pem = self.authority.issue(identity)?;
        write_new(&files.key, &pem.key, Access::Secret)?;
        write_new(&files.cert, &pem.cert, Access::Public)?;
        Ok(files)
    }

    /// Makes certificates anew for those whose files are given, or for all that are here: the same names, new keys, by the
    /// present authority. Answers what was renewed.
    ///
    /// # Errors
    /// If a file is no certificate of this cluster. Those before it are renewed.
    pub fn renew(&self, certs: &[PathBuf]) -> Result<Vec<(Identity, Files)>, TlsError> {
        let all;
        let certs = if certs.is_empty() {
            all = self.certificates()?;
            &all
        } else {
            certs
        };
        certs.iter().map(|cert| self.renew_one(cert)).collect()
    }

    fn renew_one(&self, cert: &Path) -> Result<(Identity, Files), TlsError> {
        let shown = cert.display();
        let identity = leaf(cert)?.identity(&Names::new()).map_err(|why| TlsError::new(format!("{shown}: {why}")))?;
        if identity.cluster != self.cluster() {
            return Err(TlsError::new(format!(
                "{shown} is of the cluster {:?}, and this authority is that of {:?}: name the directory of the right one with \
                 --dir",
                identity.cluster,
                self.cluster()
            )));
        }
        let files = Files { ca: self.ca(), cert: cert.to_owned(), key: cert.with_extension("key") };
        if !self.authority.has_made(&read(cert, "cert")?)? {
            return Err(TlsError::new(format!(
                "{shown} says that it is {identity}, and neither this authority nor the one before made it: whoever did may say \
                 anything. Make a certificate for them by name"
            )));
        }
        if !files.key.exists() {
            return Err(TlsError::new(format!(
                "the key of {shown} is not beside it as {}, and the two are renewed together: name them so, or make a \
                 certificate for {identity} by name",
                files.key.display()
            )));
        }
        let pem = self.authority.issue(&identity)?;
        // Between the two a node that reads them finds that they do not fit, and keeps what it has.
        replace(&files.key, &pem.key, Access::Secret)?;
        replace(&files.cert, &pem.cert, Access::Public)?;
        sync(cert.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")))?;
        Ok((identity, files))
    }

    fn certificates(&self) -> Result<Vec<PathBuf>, TlsError> {
        let listed = fs::read_dir(&self.directory).map_err(|error| failed(&self.directory, &error))?;
        let mut found: Vec<PathBuf> = listed.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        found.retain(|path| path.extension().is_some_and(|ext| ext == "pem") && *path != self.ca());
        found.sort();
        Ok(found)
    }

    /// Puts a new authority in place of the present one. Both are in `ca.pem` from now on, so that the certificates of either
    /// are believed wherever that file is.
    pub fn rotate(&mut self) -> Result<(), TlsError> {
        let next = self.authority.successor()?;
        // Whatever stops in between, `load` finds a key that fits.
        let (key, next_key) = (self.path(CA_KEY), self.path(CA_KEY_NEXT));
        replace(&next_key, next.key_pem().as_bytes(), Access::Secret)?;
        replace(&self.ca(), next.trusted().as_bytes(), Access::Public)?;
        // With the new key in place the old one is gone: by then `ca.pem` has to have the new authority for good.
        sync(&self.directory)?;
        fs::rename(&next_key, &key).map_err(|error| failed(&key, &error))?;
        sync(&self.directory)?;
        self.authority = next;
        Ok(())
    }

    /// Ends the replacement: authorities but the present one are believed no more.
    ///
    /// # Errors
    /// If a certificate that is here is of another one, and would not be believed any more.
    pub fn retire(&mut self) -> Result<(), TlsError> {
        for cert in self.certificates()? {
            if !self.authority.has_signed(&read(&cert, "cert")?)? {
                return Err(TlsError::new(format!(
                    "{} was made by the authority before, and would not be believed any more: `graft tls renew` first, and \
                     give everybody the new ones",
                    cert.display()
                )));
            }
        }
        if !self.authority.replaces_another() {
            return Err(TlsError::new(
                "no authority is being replaced: `graft tls rotate-ca` begins it, and `--finish` ends it once everybody has the new \
                 certificates",
            ));
        }
        self.authority.stand_alone();
        replace(&self.ca(), self.authority.trusted().as_bytes(), Access::Public)
    }

    fn files(&self, identity: &Identity) -> Files {
        let stem = match &identity.who {
            // Ids may have colons, which some file systems do not take.
            Who::Node(id) => format!("node-{}", id.as_str().replace(':', "_")),
            Who::Client { name, .. } => format!("client-{name}"),
        };
        Files { ca: self.ca(), cert: self.path(&format!("{stem}.pem")), key: self.path(&format!("{stem}.key")) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Files {
    pub fn source(&self) -> Source {
        Source::Files { ca: self.ca.clone(), cert: self.cert.clone(), key: self.key.clone() }
    }

    /// Whose they are. Refuses what could not be used, in words that say what to do.
    pub fn check(&self) -> Result<Identity, TlsError> {
        Endpoint::open_believed(&self.source()).map(|endpoint| endpoint.identity().clone())
    }
}

/// Files that are there already, if they are what is wanted.
fn same(files: Files, identity: &Identity) -> Result<Files, TlsError> {
    let found = files.check().map_err(|error| TlsError::new(format!("{error}. Nothing is overwritten")))?;
    if found == *identity {
        return Ok(files);
    }
    Err(TlsError::new(format!(
        "{} is there already, and is that of {found}, not of {identity}: nothing is overwritten. Remove it if it is not \
         needed any more",
        files.cert.display()
    )))
}

/// The certificates in a file, the holder's first.
pub fn certificates(path: &Path) -> Result<Vec<Certificate>, TlsError> {
    let wrong = |error: TlsError| TlsError::new(format!("{}: {error}", path.display()));
    chain(&read(path, "cert")?).map_err(wrong)?.iter().map(|der| Certificate::parse(der).map_err(wrong)).collect()
}

fn leaf(path: &Path) -> Result<Certificate, TlsError> {
    // There is one at least.
    certificates(path).map(|mut all| all.swap_remove(0))
}

fn text(path: &Path, of: &str) -> Result<String, TlsError> {
    let bytes = read(path, of)?;
    String::from_utf8(bytes).map_err(|_| TlsError::new(format!("{} is no PEM file", path.display())))
}

/// Who may read a file.
#[derive(Clone, Copy)]
enum Access {
    Public,
    Secret,
}

#[cfg(unix)]
fn options(access: Access) -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    options.write(true).create_new(true).mode(match access {
        Access::Public => 0o644,
        Access::Secret => 0o600,
    });
    options
}

#[cfg(not(unix))]
fn options(_access: Access) -> OpenOptions {
    let mut options = File::options();
    options.write(true).create_new(true);
    options
}

fn make_directory(directory: &Path) -> Result<(), TlsError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|error| failed(directory, &error))
}

fn write_new(path: &Path, bytes: &[u8], access: Access) -> Result<(), TlsError> {
    let made = options(access).open(path).map_err(|error| failed(path, &error));
    write_all(made?, path, bytes)
}

/// Whoever reads it finds the old or the new one whole.
fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), TlsError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(failed(&new, &error));
    }
    write_new(&new, bytes, access)?;
    fs::rename(&new, path).map_err(|error| failed(path, &error))
}

/// Names that were given in it stay, whatever comes.
#[cfg(unix)]
fn sync(directory: &Path) -> Result<(), TlsError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(|error| failed(directory, &error))
}

#[cfg(not(unix))]
fn sync(_directory: &Path) -> Result<(), TlsError> {
    Ok(())
}

fn write_all(mut file: File, path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> TlsError {
    let shown = path.display();
    TlsError::new(match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{shown} is there already, and nothing is overwritten: remove it if it is not needed, or use --dir")
        }
        ErrorKind::PermissionDenied => format!("{shown}: this user may not write there"),
        _ => format!("{shown}: {error}"),
    })
}

#[cfg(test)]
#[path = "tests/depot.rs"]
mod tests;
