//! The limit: callers hand bytes to one thread, which appends what has come and flushes it once for all of them. No logic.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

/// Bytes to append, and the word that they are on disk.
type Line = (Vec<u8>, oneshot::Sender<()>);

/// How long `callers` take to append lines of these sizes, each waiting until its line is on disk.
pub async fn run(folder: &Path, callers: usize, sizes: &[usize]) -> Result<Duration> {
    let file = File::create(folder.join("lines"))?;
    let (send, inbox) = mpsc::channel::<Line>(1024);
    let writer = std::thread::spawn(move || serve(&file, inbox));
    let start = Instant::now();
    let tasks: Vec<_> = sizes
        .chunks(sizes.len().div_ceil(callers))
        .map(|sizes| {
            let (send, sizes) = (send.clone(), sizes.to_vec());
            tokio::spawn(async move {
                for size in sizes {
                    let (done, on_disk) = oneshot::channel();
                    send.send((vec![b'x'; size], done)).await.ok().context("the appender is gone")?;
                    on_disk.await.context("the appender failed")?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let took = start.elapsed();
    drop(send);
    writer.join().map_err(|_| anyhow::anyhow!("the appender broke off"))??;
    Ok(took)
}

#[allow(clippy::needless_pass_by_value)] // the thread owns its inbox
fn serve(mut file: &File, mut inbox: mpsc::Receiver<Line>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut waiting = Vec::new();
    while let Some(first) = inbox.blocking_recv() {
        let mut next = Some(first);
        while let Some((line, done)) = next {
            bytes.extend_from_slice(&line);
            waiting.push(done);
            next = inbox.try_recv().ok();
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        bytes.clear();
        for done in waiting.drain(..) {
            // A caller that went away needs no answer.
            let _ = done.send(());
        }
    }
    Ok(())
}
