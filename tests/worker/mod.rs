//! Another process that does what its input says, a line at a time.
#![allow(dead_code)] // Each test file uses a part of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// A worker, as its parent sees it.
pub struct Worker {
    process: Child,
    input: ChildStdin,
    output: Option<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts the program, and waits until it says that it is ready.
    pub fn start(program: &mut Command) -> Worker {
        let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = piped.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut worker = Worker { process, input, output: Some(BufReader::new(output)) };
        while worker.line() != "ready" {}
        worker
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn say(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.output.as_mut().expect("its lines go elsewhere");
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the worker ended");
        line.trim_end().to_owned()
    }

    /// From now on all of its lines come this way, as it says them.
    pub fn lines(&mut self) -> Receiver<String> {
        let output = self.output.take().expect("its lines go elsewhere");
        let (sender, receiver) = mpsc::channel();
        // A dying process may have begun a line that it did not end.
        let whole = |line: &String| line.ends_with('\n');
        thread::spawn(move || {
            let mut output = output;
            loop {
                let mut line = String::new();
                let is_there = output.read_line(&mut line).is_ok_and(|size| size > 0) && whole(&line);
                if !is_there || sender.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        receiver
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn answer(&mut self, command: &str) -> String {
        self.say(command);
        self.line()
    }
}

impl Drop for Worker {
    /// By SIGKILL: a worker always dies as in a crash.
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
