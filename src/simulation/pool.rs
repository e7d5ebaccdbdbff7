//! A worker pool whose workers are coroutines inside the coroutine of the call that runs them.

use std::rc::Rc;
use std::sync::Arc;

use generator::{Generator, Gn};

use super::world::{MAX_STEPS, STACK, Wake, World, current_process, go_on};
use crate::worker_pool::{COOPERATIVE, Cooperative};

/// The worker pools of the calls in a world.
struct Pool(Arc<World>);

/// Selects the world whose calls run on this thread.
pub fn enter(world: Option<&Arc<World>>) {
    COOPERATIVE.set(world.map(|world| Rc::new(Pool(Arc::clone(world))) as Rc<dyn Cooperative>));
}

impl Cooperative for Pool {
    #[allow(deprecated)]
    fn run(&self, workers: usize, work: &(dyn Fn() + Sync)) {
        let begin = Wake::At(self.0.now());
        let mut tasks: Vec<(Generator<'_, (), Wake>, Wake)> = Vec::new();
        for _ in 0..workers {
            let run = move || {
                work();
                begin
            };
            tasks.push((Gn::<()>::new_opt(STACK, run), begin));
        }
        let mut steps = 0;
        while !tasks.is_empty() {
            steps += 1;
            if steps == MAX_STEPS {
                // Coroutines that are suspended in the middle of calls cannot be dropped.
                std::mem::forget(tasks);
                panic!("the pool has no end");
            }
            let now = self.0.now();
            // In a crashed process, each coroutine must end.
            let is_crashed = self.0.is_crashed(current_process());
            let is_due = |(_, wake): &(_, Wake)| is_crashed || wake.time() <= now;
            // A coroutine that polls runs again after each step of another.
            let can_run = |task: &(_, Wake)| is_due(task) || matches!(task.1, Wake::Poll(_));
            let ready: Vec<usize> =
                (0..tasks.len()).filter(|index| can_run(&tasks[*index])).collect();
            let is_any_due = tasks.iter().any(is_due);
            if !ready.is_empty() {
                let index = self.0.with(|state| state.rng.pick(&ready));
                let (task, wake) = &mut tasks[index];
                let next = task.resume();
                if task.is_done() {
                    drop(tasks.swap_remove(index));
                    continue;
                }
                *wake = next.unwrap_or(begin);
            }
            if !is_any_due {
                let next = tasks.iter().map(|(_, wake)| wake.time()).min().unwrap_or(now);
                go_on(Wake::Poll(next));
            }
        }
    }
}
