//! A home directory of its own for each test, and the built program in it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// A machine with nothing but a home directory.
pub struct Home {
    dir: TempDir,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    /// An empty home directory.
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// One with a vault in it.
    pub fn with_vault() -> Self {
        let home = Self::new();
        home.ok(&["init"]);
        home
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file that nobody else can read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.mode(name, 0o600);
        path
    }

    pub fn mode(&self, name: &str, mode: u32) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(self.path().join(name), mode).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join(".local/share/keymoat")
    }

    pub fn config(&self) -> PathBuf {
        self.path().join(".config/keymoat")
    }

    pub fn database(&self) -> PathBuf {
        self.data().join("keymoat.db")
    }

    /// The program, with a clean environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keymoat"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path())
            .current_dir(self.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Done {
        done(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub fn run_with_stdin(&self, arguments: &[&str], stdin: &str) -> Done {
        feed(self.command(arguments), stdin)
    }

    /// Runs what must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Done {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done
    }

    /// Stores a field without the value ever standing on a command line.
    #[track_caller]
    pub fn put(&self, env: &str, path: &str, field: &str, value: &str) {
        let done = self.run_with_stdin(&["put", path, &format!("{field}=-"), "--env", env], value);
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// Starts a server and waits until it says that it listens.
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// As [`Home::serve`], with more flags.
    pub fn serve_with(&self, flags: &[&str]) -> Server {
        self.start_server(self.command(&[&["serve", "--listen", "127.0.0.1:0"], flags].concat()))
    }

    /// Starts a command that serves, and waits until it does.
    pub fn start_server(&self, command: Command) -> Server {
        self.start_server_logging(command, "server.log")
    }

    /// As [`Home::start_server`], with what it says in a file of this name.
    pub fn start_server_logging(&self, command: Command, log: &str) -> Server {
        let mut server = Server::start(command, self.path().join(log));
        server.wait_until_it_listens();
        server
    }

    /// Starts a server that must not come to serve, and gives what it says.
    #[track_caller]
    pub fn serve_in_vain(&self, flags: &[&str]) -> Done {
        let command = self.command(&[&["serve", "--listen", "127.0.0.1:0"], flags].concat());
        let mut server = Server::start(command, self.path().join("server.log"));
        loop {
            let ended = server.child.try_wait().unwrap();
            assert!(!server.log().contains(SERVES), "it serves: {}", server.log());
            if let Some(status) = ended {
                let code = status.code().unwrap_or(-1);
                return Done { code, stdout: String::new(), stderr: server.log() };
            }
            std::thread::yield_now();
        }
    }
}

/// What a server says when it takes requests.
const SERVES: &str = "Ctrl-C stops it.";

/// A running server; it is killed when the test forgets it.
pub struct Server {
    pub child: Child,
    log: PathBuf,
}

impl Server {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let out = std::fs::File::create(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { child, log }
    }

    fn wait_until_it_listens(&mut self) {
        // The log is polled: the server tells nobody else that it is ready. The loop is bounded by the server's life.
        while !self.log().contains(SERVES) {
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended: {}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The address that it listens on.
    pub fn address(&self) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("listens on")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }

    /// Asks it to stop, as Ctrl-C does, and gives its exit code.
    pub fn interrupt(mut self) -> i32 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request with an empty object to a server at `http://ADDRESS` and gives status and body of the answer.
pub fn http(address: &str, verb: &str, path: &str, token: &str) -> (u16, String) {
    http_with(address, verb, path, token, if verb == "GET" { "" } else { "{}" })
}

/// The same with a body of its own.
pub fn http_with(address: &str, verb: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let host = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let headers = match body.is_empty() {
        true => String::new(),
        false => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
    };
    let who = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let request =
        format!("{verb} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{who}{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits for what real processes have to bring about.
#[allow(clippy::disallowed_methods, reason = "other processes tell nobody when they are ready")]
pub fn until(mut is_so: impl FnMut() -> bool) {
    let by = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < by, "it did not come about within 30 s");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Runs a command with text on its stdin.
pub fn feed(mut command: Command, stdin: &str) -> Done {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    done(child.wait_with_output().unwrap())
}

pub fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
