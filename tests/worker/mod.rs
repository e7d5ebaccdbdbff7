//! Another process that does what its input says, a line at a time.
#![allow(dead_code)] // Each test file uses a part of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A worker, as its parent sees it.
pub struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts the program, and waits until it says that it is ready.
    pub fn start(program: &mut Command) -> Worker {
        let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = piped.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut worker = Worker { process, input, output: BufReader::new(output) };
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
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the worker ended");
        line.trim_end().to_owned()
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
