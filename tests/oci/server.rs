//! The distribution's own registry, on a port of this host, for as long as a test wants it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running registry. Dropping it ends it.
pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
}

impl Server {
    /// Starts one. `configure` may write files into its directory, and gives what its configuration is to say: lines of its section
    /// `http`, which are indented, and other sections.
    pub(crate) fn start(configure: impl FnOnce(&Path) -> (String, String)) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (http, more) = configure(directory.path());
        let data = directory.path().join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:{port}\n{http}{more}",
            data.display(),
        );
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        // It goes with its test, however that ends.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("install docker-registry");
        let mut server = Server { process, port, directory };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "the registry ended");
            assert!(begun.elapsed() < Duration::from_secs(60), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Its name, as references have it.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
