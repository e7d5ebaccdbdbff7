//! A child process that executes commands from its input, one per line.
#![allow(dead_code)] // Each test file uses only a part.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// The parent's handle of a worker.
pub struct Worker {
    process: Child,
    input: ChildStdin,
    output: Option<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts the program and waits until it reports that it is ready.
    pub fn start(program: &mut Command) -> Worker {
        let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = piped.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut worker = Worker { process, input, output: Some(BufReader::new(output)) };
        while worker.line() != "ready" {}
        worker
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn say(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    pub fn line(&mut self) -> String {
        let output = self.output.as_mut().expect("the output was taken by lines()");
        loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the worker has exited");
            if !is_of_test_harness(&line) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Returns all further lines through a channel.
    pub fn lines(&mut self) -> Receiver<String> {
        let output = self.output.take().expect("the output was already taken");
        let (sender, receiver) = mpsc::channel();
        // A killed process may leave an incomplete line.
        let whole = |line: &String| line.ends_with('\n');
        thread::spawn(move || {
            let mut output = output;
            loop {
                let mut line = String::new();
                let is_there =
                    output.read_line(&mut line).is_ok_and(|size| size > 0) && whole(&line);
                if !is_there {
                    break;
                }
                if !is_of_test_harness(&line) && sender.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        receiver
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn answer(&mut self, command: &str) -> String {
        self.say(command);
        self.line()
    }
}

/// A worker may be a test, which reports after a minute that it is still running.
fn is_of_test_harness(line: &str) -> bool {
    line.starts_with("test ") && line.contains(" has been running for over ")
}

impl Drop for Worker {
    /// Uses SIGKILL, so that a worker always dies as in a crash.
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
