use quicksand::{Sandbox, sandbox_test};

struct Outcome;

impl std::process::Termination for Outcome {
    fn report(self) -> std::process::ExitCode {
        std::process::ExitCode::SUCCESS
    }
}

#[sandbox_test(image = "debian", requires(kvm))]
async fn test(sb: Sandbox) -> Outcome {
    drop(sb);
    Outcome
}

fn main() {}
