//! A destination: puts, lists, reads and deletes objects. Chooses no names.

use crate::download::Download;
use crate::environment::{self, AZURE_ADVICE};
use crate::error::{Asks, Error};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart};
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The smallest part of a multipart upload, bytes. A smaller object is uploaded in one request.
const PART_BYTES_MIN: u64 = 8 << 20;
/// The bound of parts per object. Object stores accept at most 10,000.
const PARTS_MAX: u64 = 9_000;
/// The number of parts in flight.
const PARTS_AT_ONCE: usize = 3;
/// The timeout of a short request. The clients of clouds retry for minutes by themselves, and a
/// partition that looks for a snapshot is not folded meanwhile.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// A store of objects. Cheap to clone.
#[derive(Clone)]
pub struct Destination {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    shown: String,
    /// The path, where it is a directory.
    root: Option<std::path::PathBuf>,
    /// What to set, if no credentials were found.
    advice: Option<&'static str>,
    runtime: Arc<Background>,
    stop: CancellationToken,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The name within the destination; `/` separates folders.
    pub name: String,
    /// The length, bytes.
    pub bytes: u64,
    /// The time of the upload, Unix milliseconds, by the destination's clock.
    pub modified_ms: u64,
}

/// A runtime that can be dropped on any thread.
struct Background(Option<Arc<Runtime>>);

impl Background {
    fn start() -> Result<Self, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("objects").enable_all().build();
        let runtime =
            runtime.map_err(|source| Error::Local { doing: "starting the thread for objects".into(), source })?;
        Ok(Self(Some(Arc::new(runtime))))
    }

    fn get(&self) -> &Arc<Runtime> {
        self.0.as_ref().expect("present until dropped")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}

impl Destination {
    /// Opens a destination by a directory's path, which is created if it is missing, or by a URL.
    /// Credentials and addresses of a cloud come from the environment variables of its own tools:
    /// `AWS_…`, `GOOGLE_…`, `AZURE_…`, and from profiles of AWS. Uses no network.
    ///
    /// # Errors
    /// If the text names no destination, or the directory cannot be created.
    pub fn open(text: &str) -> Result<Self, Error> {
        let wrong = |detail: String| Error::NoDestination { text: shown_of(text), detail };
        if text.trim().is_empty() {
            return Err(wrong("it is empty".into()));
        }
        match Url::parse(text) {
            Ok(url) if text.contains("://") => match url.scheme() {
                "file" => Self::directory(&url.to_file_path().map_err(|()| wrong("it names no path".into()))?),
                "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" => {
                    let variables = std::env::vars_os();
                    let variables = variables
                        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
                    let read = |path: &Path| fs::read_to_string(path);
                    let options = environment::options(url.scheme(), &variables.collect(), read).map_err(wrong)?;
                    let (store, prefix) = object_store::parse_url_opts(&url, options.pairs).map_err(|error| {
                        let detail = error.to_string();
                        // The client does not say where it looks for the account.
                        let is_nameless = detail.contains("Account must be specified");
                        wrong(if is_nameless { format!("no account is named: {AZURE_ADVICE}") } else { detail })
                    })?;
                    Ok(Self { advice: options.advice, ..Self::over(store.into(), prefix, shown_of(text))? })
                }
                scheme => Err(wrong(format!("{scheme}:// is not supported"))),
            },
            _ => Self::directory(Path::new(text)),
        }
    }

    /// Opens a directory, and creates it if it is missing. Objects are synced before they count.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub fn directory(path: &Path) -> Result<Self, Error> {
        let local = |source| Error::Local { doing: format!("creating the directory {}", path.display()), source };
        let made: Vec<&Path> =
            path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
        fs::create_dir_all(path).map_err(local)?;
        for parent in made.iter().filter_map(|folder| folder.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(local)?;
        }
        let path = path.canonicalize().map_err(local)?;
        let shown = path.display().to_string();
        let store = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| Error::of_store(format!("opening {shown}"), &shown, Asks::Object, None, &error))?;
        let opened = Self::over(Arc::new(store.with_fsync(true)), Key::default(), shown)?;
        Ok(Self { root: Some(path), ..opened })
    }

    /// Opens a destination in memory, for tests.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn memory() -> Result<Self, Error> {
        Self::over(Arc::new(object_store::memory::InMemory::new()), Key::default(), "memory".into())
    }

    fn over(store: Arc<dyn ObjectStore>, prefix: Key, shown: String) -> Result<Self, Error> {
        let runtime = Arc::new(Background::start()?);
        Ok(Self { store, prefix, shown, root: None, advice: None, runtime, stop: CancellationToken::new() })
    }

    /// Makes all calls end with [`Error::Stopped`] once the token is cancelled.
    #[must_use]
    pub fn stopped_by(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Returns the client of the store, and the URL of a folder by whose path the client knows it:
    /// for a library that brings its own table format. A URL that begins with `file:` is a
    /// directory, whose listings have no order.
    ///
    /// # Errors
    /// If the folder's name makes no URL.
    pub fn store(&self, folder: &str) -> Result<(Arc<dyn ObjectStore>, Url), Error> {
        let wrong = || Error::NoDestination { text: self.location(folder), detail: "it makes no URL".into() };
        match &self.root {
            Some(root) => {
                let url = Url::from_directory_path(root.join(folder)).map_err(|()| wrong())?;
                Ok((Arc::new(LocalFileSystem::new().with_fsync(true)), url))
            }
            None => {
                let url = Url::parse(&format!("objects:///{}/", self.key(folder))).map_err(|_| wrong())?;
                Ok((Arc::clone(&self.store), url))
            }
        }
    }

    /// Creates the folder of a directory; object stores have none.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn make_folder(&self, folder: &str) -> Result<(), Error> {
        let Some(root) = &self.root else { return Ok(()) };
        Self::directory(&root.join(folder)).map(|_| ())
    }

    /// Returns the location of an object, for messages: without credentials.
    pub fn location(&self, name: &str) -> String {
        format!("{}/{name}", self.shown.trim_end_matches('/'))
    }

    /// Uploads a file as one object, and replaces an object of the same name. Calls `sent` with the
    /// bytes of every part.
    ///
    /// # Errors
    /// If the file or the destination fails: then the object is unchanged, or wholly replaced.
    pub fn put_file(&self, name: &str, file: &Path, sent: &mut (dyn FnMut(u64) + Send)) -> Result<u64, Error> {
        let local = |source| Error::Local { doing: format!("reading {}", file.display()), source };
        let mut from = File::open(file).map_err(local)?;
        let bytes = from.metadata().map_err(local)?.len();
        let (key, doing) = (self.key(name), format!("writing {}", self.location(name)));
        let part_bytes = PART_BYTES_MIN.max(bytes.div_ceil(PARTS_MAX));
        let mut read = |bytes: u64| -> Result<Bytes, Error> {
            let mut part = Vec::with_capacity(bytes as usize);
            (&mut from).take(bytes).read_to_end(&mut part).map_err(local)?;
            Ok(part.into())
        };
        self.run(async {
            let failed = |error: object_store::Error| {
                Error::of_store(doing.clone(), &self.location(name), Asks::Bucket, self.advice, &error)
            };
            if bytes <= part_bytes {
                self.store.put(&key, read(bytes)?.into()).await.map_err(failed)?;
                sent(bytes);
                return Ok(bytes);
            }
            let upload = self.store.put_multipart(&key).await.map_err(failed)?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, part_bytes as usize);
            let mut total = 0;
            let write = async {
                loop {
                    // A store that never blocks would give `run` no chance to see the stop between
                    // two parts.
                    if self.stop.is_cancelled() {
                        return Err(Error::Stopped);
                    }
                    let part = read(part_bytes)?;
                    if part.is_empty() {
                        return Ok(());
                    }
                    upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)?;
                    total += part.len() as u64;
                    sent(part.len() as u64);
                    upload.put(part);
                }
            };
            if let Err(error) = write.await {
                // Best effort: the parts are not an object, and the store's own rules remove them.
                _ = upload.abort().await;
                return Err(error);
            }
            upload.finish().await.map_err(failed)?;
            Ok(total)
        })
    }

    /// Uploads a few bytes as one object.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn put_bytes(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), Error> {
        let (key, bytes) = (self.key(name), bytes.into());
        self.run(self.answer("writing", name, Asks::Bucket, self.store.put(&key, bytes.into()))).map(|_| ())
    }

    /// Lists the objects of a folder by name; an empty name lists the whole destination.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn list(&self, folder: &str) -> Result<Vec<Object>, Error> {
        let key = self.key(folder);
        let listed = self.run(async {
            let (mut objects, mut found) = (self.store.list(Some(&key)), Vec::new());
            while let Some(meta) = self.answer("listing", folder, Asks::Bucket, objects.try_next()).await? {
                found.push((meta.location, meta.size, meta.last_modified));
            }
            Ok(found)
        });
        let mut found = match listed {
            // A folder of a directory.
            Err(Error::NoBucket { .. }) if self.root.is_some() => Vec::new(),
            listed => listed?,
        };
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let object = |(location, bytes, modified): (Key, u64, _)| {
            let name = location.prefix_match(&self.prefix)?;
            let name = name.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            Some(Object { name, bytes, modified_ms: millis(modified) })
        };
        Ok(found.into_iter().filter_map(object).collect())
    }

    /// Begins a download of an object.
    ///
    /// # Errors
    /// If the object is missing or the destination fails.
    pub fn read(&self, name: &str) -> Result<Download, Error> {
        self.get(name, GetOptions::default())
    }

    /// Reads the first bytes of an object, at most `bytes_max`.
    ///
    /// # Errors
    /// If the object is missing or the destination fails.
    pub fn read_start(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        // Some stores refuse an empty range.
        let options = GetOptions { range: Some(GetRange::Bounded(0..bytes_max.max(1))), ..GetOptions::default() };
        self.read_all(self.get(name, options)?)
    }

    /// Reads the last bytes of an object of this length, at most `bytes_max`.
    ///
    /// # Errors
    /// If the object is missing or the destination fails.
    pub fn read_end(&self, name: &str, bytes: u64, bytes_max: u64) -> Result<Vec<u8>, Error> {
        // Azure knows no range that counts from the end.
        let range = GetRange::Bounded(bytes.saturating_sub(bytes_max.max(1))..bytes.max(1));
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        self.read_all(self.get(name, options)?)
    }

    fn read_all(&self, mut download: Download) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let doing = format!("reading {}", download.location);
        download.read_to_end(&mut bytes).map_err(|error| Error::Failed { doing, detail: error.to_string() })?;
        Ok(bytes)
    }

    fn get(&self, name: &str, options: GetOptions) -> Result<Download, Error> {
        let key = self.key(name);
        let got = self.run(self.answer("reading", name, Asks::Object, self.store.get_opts(&key, options)))?;
        Ok(Download {
            bytes: got.meta.size,
            stream: got.into_stream().boxed(),
            piece: Bytes::new(),
            location: self.location(name),
            runtime: Arc::clone(self.runtime.get()),
            stop: self.stop.clone(),
        })
    }

    /// Removes what uploads to a folder that were cut short have left in a directory, if it was
    /// last changed at or before a time (Unix milliseconds). Object stores remove such parts
    /// themselves.
    ///
    /// # Errors
    /// If the directory cannot be read or changed.
    pub fn sweep_staged(&self, folder: &str, until_ms: u64) -> Result<(), Error> {
        let Some(root) = &self.root else { return Ok(()) };
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            let local = |source| Error::Local { doing: format!("sweeping {}", folder.display()), source };
            if !folder.exists() {
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(local)? {
                let entry = entry.map_err(local)?;
                let name = entry.file_name();
                // The store's client writes to `NAME#NUMBER` before it links the name.
                let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
                let is_staged =
                    staged.is_some_and(|(_, end)| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit()));
                let metadata = match entry.metadata() {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    metadata => metadata.map_err(local)?,
                };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if is_staged && metadata.modified().is_ok_and(|at| millis(at) <= until_ms) {
                    match fs::remove_file(entry.path()) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(local(error)),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// If the destination fails.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        let key = self.key(name);
        match self.run(self.answer("removing", name, Asks::Object, self.store.delete(&key))) {
            Err(Error::Missing { .. }) => Ok(()),
            removed => removed,
        }
    }

    fn key(&self, name: &str) -> Key {
        name.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |key, part| key.join(part))
    }

    /// Waits for an answer, at most [`ANSWER_WAIT`].
    async fn answer<T>(
        &self,
        doing: &str,
        name: &str,
        asks: Asks,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        let location = self.location(name);
        let doing = format!("{doing} {location}");
        match tokio::time::timeout(ANSWER_WAIT, request).await {
            Ok(answer) => answer.map_err(|error| Error::of_store(doing, &location, asks, self.advice, &error)),
            // The client asks a metadata service that does not answer.
            Err(_) if let Some(advice) = self.advice => Err(Error::NoCredentials { doing, advice: advice.to_owned() }),
            Err(_) => {
                let seconds = ANSWER_WAIT.as_secs();
                Err(Error::Failed {
                    doing,
                    detail: format!("no answer within {seconds} s: check the address and the network"),
                })
            }
        }
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.get().block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Error::Stopped),
                done = work => done,
            }
        })
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({})", self.shown)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Returns a text without the parts of a URL that may hold a password: user and query.
fn shown_of(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if text.contains("://") => {
            _ = url.set_username("");
            _ = url.set_password(None);
            url.set_query(None);
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

fn millis<T: Into<std::time::SystemTime>>(time: T) -> u64 {
    let since = time.into().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
