//! `chaos`: parses the command line and runs the command.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use gateway::{
    backup, chat,
    config::{self, Command, LogFormat},
    health, log, serve,
    start::CommandError,
    terminal, transfer,
};

/// Returns unused pages to the system after about ten seconds, on a thread of its own. The arenas of
/// the C library keep what ended sessions have used.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (error, log_format) = match config::from_process() {
        Ok(command) => {
            let log_format = command.log_format();
            match run(command) {
                Ok(code) => return code,
                Err(error) => (error, log_format),
            }
        }
        Err(error) => (CommandError::of(&error), error.log_format()),
    };
    report(&error, log_format);
    ExitCode::from(2)
}

/// Reports why the process ends, in the format of its log.
fn report(error: &CommandError, log_format: LogFormat) {
    if log_format == LogFormat::Json {
        // Errors of settings occur before the log is started.
        let _ = log::init(log_format, "error");
        tracing::error!("{error}");
    } else {
        // The error may quote a key that was passed in place of a file.
        let _ = writeln!(
            io::stderr(),
            "chaos: {}",
            terminal::escape(&log::scrub(&error.to_string()))
        );
    }
}

fn run(command: Command) -> Result<ExitCode, CommandError> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(CommandError::of)
    };
    let done = match command {
        Command::Serve(config) => {
            runtime()?.block_on(serve::serve(*config, &serve::program_name()))
        }
        Command::Chat(settings) => {
            let runtime = runtime()?;
            let ended = runtime.block_on(chat::run(settings));
            // Does not wait for a blocking read of the terminal.
            runtime.shutdown_background();
            ended
        }
        Command::Export(settings) => runtime()?.block_on(transfer::export(settings)).map(drop),
        Command::Import(settings) => runtime()?.block_on(transfer::import(settings)).map(drop),
        Command::Config(text) => {
            for line in text.lines() {
                let _ = writeln!(io::stdout(), "{}", terminal::escape(line));
            }
            Ok(())
        }
        Command::Backup(backup) => backup::backup(&backup),
        Command::Restore(restore) => backup::restore(&restore),
        Command::Check(check) => return backup::check(&check),
        Command::Health(settings) => return health::health(&settings),
    };
    done.map(|()| ExitCode::SUCCESS)
}
