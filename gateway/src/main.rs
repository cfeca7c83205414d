//! `chaos`: reads the configuration, builds, runs.

use std::process::ExitCode;

use gateway::{
    chat,
    config::{self, Command, Config},
    keep, log, moving,
    node::Node,
    start::StartError,
};

fn main() -> ExitCode {
    match config::from_process().map_err(StartError::of).and_then(run) {
        Ok(code) => code,
        Err(error) => {
            // A key given in place of its file, say.
            eprintln!("chaos: {}", log::scrub(&error.to_string()));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, StartError> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(StartError::of)
    };
    let done = match command {
        Command::Serve(config) => runtime()?.block_on(serve(*config)),
        Command::Chat(settings) => {
            let runtime = runtime()?;
            let ended = runtime.block_on(chat::run(settings));
            // A read of the terminal may still wait for a line.
            runtime.shutdown_background();
            ended
        }
        Command::Export(settings) => runtime()?.block_on(moving::export(settings)).map(drop),
        Command::Import(settings) => runtime()?.block_on(moving::import(settings)).map(drop),
        Command::Config(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Backup(backup) => keep::backup(&backup),
        Command::Restore(restore) => keep::restore(&restore),
        Command::Check(check) => return keep::check(&check),
    };
    done.map(|()| ExitCode::SUCCESS)
}

async fn serve(config: Config) -> Result<(), StartError> {
    log::init(config.log_format, &config.log_filter).map_err(StartError::of)?;
    let data = match &config.store {
        config::StoreConfig::Embedded { data } => Some(data.clone()),
        config::StoreConfig::Redis { .. } => None,
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(StartError::of)?;
    let node = Node::start(config).await?;
    let address = node.address;
    println!("WebSocket  ws://{address}/v1/ws");
    println!("HTTP API   http://{address}/v1/openapi.json");
    if let Some(address) = node.ops_address {
        println!("Operations http://{address}/metrics");
    }
    if let Some(data) = data {
        println!(
            "Admin key  {}",
            data.join(gateway::start::ADMIN_KEY).display()
        );
    }
    if node.has_demo {
        let chaos = std::env::args().next().unwrap_or_else(|| "chaos".into());
        println!("Chat now   {chaos} chat --user alice");
        println!("           {chaos} chat --user bob      in another terminal");
    }
    let ended = tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
        error = node.unfit() => Err(error),
    };
    node.drain().await;
    ended
}
