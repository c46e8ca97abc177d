"""The ``zeroloss`` command: one subcommand a question, one line on stderr for a mistake.

Exit codes: 0 done, 1 a claim violated or a certificate refused or not accepted, 2 a caller's mistake, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from zeroloss.errors import ZerolossError


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line with a remedy."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after ``zeroloss``; by default the process's own.

    Returns:
        The exit code.

    Example:
        >>> main(["report", "no-such-folder"])
        2
    """
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
        return code
    except ZerolossError as error:
        print(f"zeroloss {parsed.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # the reader went away; give the interpreter's own flush at exit somewhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error) and "out of memory" not in str(error):
            raise
        print(f"zeroloss {parsed.command}: there is not enough memory for this; pass a smaller --width or -n", file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        remedy = "free some space" if error.errno == errno.ENOSPC else "name another folder with --out"
        print(f"zeroloss {parsed.command}: {place}{reason}; {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "starts afresh" if parsed.command in ("data", "diagnose") else "goes on where it was"
        print(f"zeroloss {parsed.command}: interrupted; the same command {again}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    # the commands import what they need when they run, so --help answers at once
    parser = _Parser(prog="zeroloss", description="Whether, how fast and why gradient descent drives a training loss to zero.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_study(commands)
    _add_claims(commands)
    _add_data(commands)
    _add_kernel(commands)
    _add_diagnose(commands)
    _add_certify(commands)
    _add_report(commands)
    _add_verify(commands)
    return parser


def _add(commands: argparse._SubParsersAction[_Parser], name: str, summary: str, example: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary}.", epilog=f"Example: {example}")
    command.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, on standard output")
    return command


def _data_arguments(command: argparse._ActionsContainer) -> None:
    command.add_argument("-n", type=int, metavar="N", help="how many rows, drawn evenly over the classes")
    command.add_argument("--classes", metavar="A,B,...", help="which classes, such as 3,8; 'all' for every one")
    command.add_argument("--normalise", metavar="HOW", help="auto (default), sphere, padded or none")
    command.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="average images down to this height and width (convolutional networks take 14 or 16 of the larger sets unless told)",
    )
    command.add_argument("--root", metavar="DIR", help="the folder of data sets, and where relative paths of data files start")


def _add_study(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(
        commands,
        "study",
        "Train networks to zero loss, with the theory's prediction beside what happens",
        "zeroloss study --data digits --classes 3,8 -n 100",
    )
    command.add_argument("--list", action="store_true", help="print the presets, one a theorem, and train nothing")
    command.add_argument(
        "--preset", metavar="NAME", help="start from a preset of --list, such as az-theorem-6; flags override it"
    )
    command.add_argument("--from", dest="file", metavar="FILE", help="start from a study.toml; flags override its fields")
    data = command.add_argument_group("data")
    data.add_argument("--data", metavar="SOURCE", help="digits, iris, wine, mnist, cifar10, uci/NAME, ... or a .npz or .csv file")
    _data_arguments(data)
    data.add_argument("--labels", metavar="KIND", help="true (default), random, or noisy")
    data.add_argument("--noise", type=float, metavar="SHARE", help="share of noisy labels (0.2)")
    network = command.add_argument_group("networks")
    network.add_argument(
        "--network", action="append", metavar="FAMILY", help="fully_connected, resnet, cnn or conv_resnet; may be repeated"
    )
    network.add_argument("--scheme", metavar="NAME", help="allen-zhu or du, for the networks named with --network")
    network.add_argument(
        "--activation",
        metavar="NAME",
        help="relu, softplus, tanh, erf, gelu, sigmoid, swish, sin, cos, leaky_relu, abs or hard_tanh",
    )
    network.add_argument("--width", metavar="M", type=int, help="hidden width (channels) of every network")
    network.add_argument("--depth", metavar="L", type=int, help="depth of every network")
    network.add_argument("--train", metavar="A,W1,...", help="the layers to train; 'all' for every one")
    network.add_argument("--tau", help="AZ's residual scale: 1/L, 1/(L log m), 1/sqrt(L), 1 or a number")
    network.add_argument("--block", type=int, metavar="K", help="matrices in a block of AZ's ResNet: 1, 2 or 3")
    network.add_argument("--kernel", type=int, metavar="SIDE", help="side of a convolution's patches (3)")
    network.add_argument("--padding", help="of convolutions: zeros or circular")
    training = command.add_argument_group("training")
    training.add_argument("--loss", metavar="NAME", help="squared, cross_entropy, logistic, quartic, log_cosh, sine or welsch")
    training.add_argument("--batch", type=int, metavar="B", help="stochastic gradient descent in batches of this size")
    training.add_argument("--replacement", action="store_true", default=None, help="draw batches with replacement")
    training.add_argument("--momentum", type=float, metavar="MU", help="heavy-ball momentum (0)")
    training.add_argument("--seed", type=int, help="of initial weights, choice of rows, labels and batches")
    training.add_argument("--step", metavar="ETA", help="auto (from the initial Gram), theory, or a number")
    training.add_argument("--max-steps", type=int, metavar="K", help="the budget of each run")
    training.add_argument("--until", type=float, metavar="RATIO", help="target loss relative to the first one (1e-8)")
    training.add_argument("--dtype", help="float32 (default) or float64; spectra and verdicts are float64 always")
    training.add_argument("--device", help="auto (default), cpu or cuda")
    command.add_argument("--out", metavar="DIR", help="the run folder (default: a name made from the study, under runs/)")
    command.add_argument("--no-claims", action="store_true", help="skip the claims")
    command.add_argument("--forecast", action="store_true", help="print the predicted steps and time, and train nothing")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.study import study_command

        return study_command(parsed)

    command.set_defaults(run=run)


def _add_claims(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "claims", "Check numbered statements of the papers", "zeroloss claims AZ-16 DU-01")
    command.add_argument("ids", nargs="*", metavar="ID", help="which claims; all of them when none is named")
    command.add_argument("--budget", default="quick", metavar="HOW", help="quick (default) or full")
    command.add_argument("--list", action="store_true", help="print the catalogue and check nothing")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.inspect import claims_command

        return claims_command(parsed)

    command.set_defaults(run=run)


def _add_data(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "data", "Describe a data set as the theorems see it", "zeroloss data digits -n 100 --classes 3,8")
    command.add_argument("source", metavar="SOURCE", help="digits, iris, wine, breast_cancer, diabetes, or a .npz or .csv file")
    _data_arguments(command)
    command.add_argument("--seed", type=int, default=0, help="of the choice of rows")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.inspect import data_command

        return data_command(parsed)

    command.set_defaults(run=run)


def _add_kernel(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(
        commands,
        "kernel",
        "Write a network's infinite-width kernel on a data set to a .npy file",
        "zeroloss kernel digits --classes 3,8 -n 300 --depth 3 --out kernel.npy",
    )
    command.add_argument(
        "data", metavar="SOURCE", help="digits, iris, wine, mnist, cifar10, uci/NAME, ... or a .npz or .csv file"
    )
    _data_arguments(command)
    command.add_argument("--seed", type=int, default=0, help="of the choice of rows")
    command.add_argument(
        "--network", default="fully_connected", metavar="FAMILY", help="fully_connected (default), resnet, cnn, ..."
    )
    command.add_argument("--scheme", default="du", metavar="NAME", help="du (default; norms of 1 in every layer) or allen-zhu")
    command.add_argument("--activation", default="relu", metavar="NAME", help="relu (default), erf, gelu, softplus, ...")
    command.add_argument("--depth", type=int, default=3, metavar="L", help="hidden layers (3)")
    command.add_argument("--width", type=int, default=1024, metavar="M", help="only a factor of the kernel's units here (1024)")
    command.add_argument("--kind", default="ntk", metavar="KIND", help="ntk (default), nngp or last-hidden")
    command.add_argument(
        "--dtype", default="float64", help="float64 (default) or float32, with half the memory and a third of the time"
    )
    command.add_argument("--out", required=True, metavar="FILE", help="the .npy file; the same command goes on where it was")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.kernel import kernel_command

        return kernel_command(parsed)

    command.set_defaults(run=run)


def _add_diagnose(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(
        commands,
        "diagnose",
        "Say why a network of yours will not fit, which step is stable and how long it takes",
        "zeroloss diagnose net.py --data digits -n 100 --step 0.1 --out diagnosis",
    )
    command.add_argument(
        "file",
        metavar="FILE.py",
        help="defines build() (or build(width=64)), giving an nn.Module; it is executed: name only code you trust",
    )
    command.add_argument("--data", required=True, metavar="SOURCE", help="digits, iris, mnist, ... or a .npz or .csv file")
    _data_arguments(command)
    command.add_argument("--seed", type=int, default=0, help="of the choice of rows, and of torch's generator before build()")
    command.add_argument("--step", type=float, metavar="ETA", help="a step to be judged, in the units of the summed loss")
    command.add_argument("--loss", default="squared", metavar="NAME", help="squared (default), cross_entropy, logistic, ...")
    command.add_argument("--budget", type=int, default=1500, metavar="NK", help="rows times outputs that are measured (1500)")
    command.add_argument("--out", metavar="DIR", help="a folder for the page, diagnosis.html, and diagnosis.json")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.diagnose import diagnose_command

        return diagnose_command(parsed)

    command.set_defaults(run=run)


def _add_certify(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(
        commands,
        "certify",
        "Train a network, polish it, and prove that zero loss lies next to its weights and is reached",
        "zeroloss certify digits -n 100 --classes 3,8 --width 256 --out proof.json",
    )
    command.add_argument(
        "data", metavar="SOURCE", help="digits, iris, wine, mnist, cifar10, uci/NAME, ... or a .npz or .csv file"
    )
    _data_arguments(command)
    command.add_argument("--seed", type=int, default=0, help="of initial weights and of the choice of rows")
    command.add_argument(
        "--network", default="fully_connected", metavar="FAMILY", help="fully_connected (default), resnet, cnn, ..."
    )
    command.add_argument("--scheme", default="du", metavar="NAME", help="du (default, trains every layer) or allen-zhu")
    command.add_argument("--activation", default="relu", metavar="NAME", help="relu (default), softplus, tanh, erf, gelu, ...")
    command.add_argument("--depth", type=int, default=2, metavar="L", help="hidden layers (2)")
    command.add_argument("--width", type=int, default=256, metavar="M", help="units (channels) a layer (256)")
    command.add_argument("--train", metavar="A,W1,...", help="the layers to train; 'all' for every one")
    command.add_argument("--module", metavar="FILE.py", help="take the network that build() in this file returns; it is executed")
    command.add_argument(
        "--max-steps", type=int, default=2000, metavar="K", help="of gradient descent beforehand (2000); 0 for none"
    )
    command.add_argument(
        "--until", type=float, default=1e-6, metavar="RATIO", help="stop it at this loss relative to the first (1e-6)"
    )
    command.add_argument("--no-polish", action="store_true", help="certify the weights as training leaves them")
    command.add_argument("--method", default="flow", metavar="NAME", help="flow (default), gd, sgd or newton (existence alone)")
    command.add_argument("--step", type=float, metavar="ETA", help="the step of gd or sgd (default: one that is found)")
    command.add_argument("--batch", type=int, metavar="B", help="rows a step of sgd")
    command.add_argument("--scale", type=float, default=1.0, metavar="KAPPA", help="a factor of the outputs (1)")
    command.add_argument(
        "--precision", default="float64", metavar="NAME", help="float64 (default) or extended, for deep networks"
    )
    command.add_argument("--out", metavar="FILE.json", help="where to write the certificate, its tensors beside it")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.certify import certify_command

        return certify_command(parsed)

    command.set_defaults(run=run)


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "report", "Write the report of a finished study again", "zeroloss report runs/my-study")
    command.add_argument("folder", metavar="DIR", help="the run folder")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.inspect import report_command

        return report_command(parsed)

    command.set_defaults(run=run)


def _add_verify(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "verify", "Check a saved certificate by an independent program", "zeroloss verify digits.json")
    command.add_argument("certificate", metavar="FILE", help="the certificate's JSON; its tensors lie beside it")

    def run(parsed: argparse.Namespace) -> int:
        from zeroloss.cli.verify import verify_command

        return verify_command(parsed)

    command.set_defaults(run=run)
