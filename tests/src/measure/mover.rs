//! One move on one thread, as the product's mover has it.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use webhost_agent::mover::error::MoveError;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::{Done, Step};

type Order = (Step, oneshot::Sender<Result<Done, MoveError>>);

/// A thread that carries out the steps of one move.
pub struct Mover {
    orders: mpsc::Sender<Order>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Mover {
    /// Starts it.
    pub fn start(run: Run) -> Self {
        let (orders, mut ordered) = mpsc::channel::<Order>(1);
        let run = Arc::new(run);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                while let Some((step, answer)) = ordered.recv().await {
                    let outcome = run.step(step).await;
                    // Whoever asked may be gone; the next order says so.
                    let _gone = answer.send(outcome);
                }
            });
            anyhow::Ok(())
        });
        Self { orders, thread: Some(thread) }
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn step(&self, step: Step) -> anyhow::Result<Done> {
        let (answer, answered) = oneshot::channel();
        self.orders.send((step, answer)).await.ok().context("the mover's thread ended")?;
        let outcome = answered.await.context("the mover's thread ended")?;
        outcome.with_context(|| format!("step {step}"))
    }

    /// Carries out several.
    ///
    /// # Errors
    /// Why one failed.
    pub async fn steps(&self, steps: &[Step]) -> anyhow::Result<()> {
        for step in steps {
            self.step(*step).await?;
        }
        Ok(())
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.orders = closed;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the mover's thread panicked");
        }
    }
}
