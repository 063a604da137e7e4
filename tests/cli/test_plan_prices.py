"""`headrace plan prices`: refreshed from a real HTTP server on this machine, whose answers are written by us."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from price_answers import G2_PARTS, G2_STANDARD_4_USD, aws_list, azure_item, azure_page

from headrace.cli import main
from headrace.planner.price_book import kept_path, kept_prices, known_prices, shipped_prices

AWS_FILE = "/offers/v1.0/aws/AmazonEC2/current/us-east-1/index.csv"
KEY = "a-secret-key"


class Lists:
    """The three providers' lists under one address. `answers` is what a path gets, a text or a status."""

    def __init__(self) -> None:
        self.answers: dict[str, str | int] = {}
        self.keys: list[str | None] = []
        self.announced: int | None = None
        lists = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lists.keys.append(self.headers.get("X-Goog-Api-Key"))
                answer = lists.answer(self.path)
                self.send_response(answer if isinstance(answer, int) else 200)
                if lists.announced is not None:
                    self.send_header("Content-Length", str(lists.announced))
                self.end_headers()
                self.wfile.write(b"" if isinstance(answer, int) else answer.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, path: str) -> str | int:
        parts = urlsplit(path)
        token = parse_qs(parts.query).get("pageToken", [""])[0]
        return self.answers.get(parts.path + token, 404)

    def serve_all(self) -> None:
        """Today's prices: all AWS rows as they were, one Azure price a little up on a second page, one GCP machine."""
        aws = [
            {"Instance Type": price.instance, "PricePerUnit": str(price.usd_per_hour)}
            for price in shipped_prices()
            if price.provider == "AWS"
        ]
        self.answers[AWS_FILE] = aws_list(*aws)
        second = azure_page(azure_item(retailPrice=3.7))
        self.answers["/second"] = json.dumps(second)
        self.answers["/api/retail/prices"] = json.dumps(azure_page(following=f"{self.url}/second"))
        skus = "/v1/services/6F81-5844-456A/skus"
        self.answers[skus] = json.dumps({"skus": G2_PARTS[:1], "nextPageToken": "more"})
        self.answers[skus + "more"] = json.dumps({"skus": G2_PARTS[1:], "nextPageToken": ""})


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lists]:
    """The server, an empty cache, and no key or proxy of the machine's own."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    for name in ("GCP_API_KEY", "GOOGLE_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Lists()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def run(lists: Lists, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `headrace plan prices`, from the server; the exit status, and what it printed and complained of."""

    def run_prices(*arguments: str) -> tuple[int, str, str]:
        mirrors = [flag for name in ("aws", "azure", "gcp") for flag in ("--from", f"{name}={lists.url}")]
        own = mirrors if arguments[0] == "refresh" else []
        monkeypatch.setattr(sys, "argv", ["headrace", "plan", "prices", arguments[0], *own, *arguments[1:]])
        status = main()
        return status, *capsys.readouterr()

    return run_prices


def kept() -> dict[str, float]:
    """What the user's snapshot says."""
    return {price.instance: price.usd_per_hour for price in kept_prices()}


def test_all_three_are_asked_and_kept(run, lists: Lists) -> None:
    lists.serve_all()
    status, printed, complaint = run("refresh", "--gcp-api-key", KEY)
    assert (status, complaint) == (0, "")
    assert kept()["g2-standard-4"] == pytest.approx(G2_STANDARD_4_USD)
    assert kept()["NC24ads_A100_v4"] == 3.7
    assert kept()["p5.48xlarge"] == 55.04
    assert "NC24ads_A100_v4: $3.673 -> $3.7 an hour (+0.7%)" in printed
    assert "a3-highgpu-8g: not in the list for us-central1; stays $88.49 of 2026-11-23" in printed
    assert str(kept_path()) in printed
    assert KEY in lists.keys and KEY not in printed
    newer = {price.instance: price for price in known_prices()}["g2-standard-4"]
    assert newer.as_of > "2026-11-23" and "Cloud Billing" in newer.source and newer.gpu == "L4"


def test_plans_are_costed_with_what_was_kept(run, lists: Lists, monkeypatch, capsys) -> None:
    lists.serve_all()
    lists.answers[AWS_FILE] = aws_list({"Instance Type": "g6.xlarge", "PricePerUnit": "0.7"})
    run("refresh", "--provider", "aws")
    monkeypatch.setattr(sys, "argv", ["headrace", "plan", "Qwen/Qwen3-8B", "--gpu", "L4", "--json"])
    assert main() == 0
    first = json.loads(capsys.readouterr().out)["offers"][0]
    assert (first["instance"], first["usd_per_hour"], first["currency"]) == ("g6.xlarge", 0.7, "USD")


def test_google_is_left_out_without_a_key(run, lists: Lists) -> None:
    lists.serve_all()
    status, printed, _ = run("refresh")
    assert status == 0
    assert "GCP: left out" in printed and "g2-standard-4" not in kept()
    status, _, complaint = run("refresh", "--provider", "gcp")
    assert status == 2 and "GCP_API_KEY" in complaint


def test_what_moved_far_is_held_back_until_it_is_accepted(run, lists: Lists) -> None:
    lists.answers[AWS_FILE] = aws_list(
        {"Instance Type": "g6.xlarge", "PricePerUnit": "0.08048"}, {"Instance Type": "g5.xlarge", "PricePerUnit": "1.1"}
    )
    status, printed, complaint = run("refresh", "--provider", "AWS")
    assert status == 2
    assert "g6.xlarge: $0.8048 -> $0.08048 an hour (-90.0%)  held back" in printed
    assert "1 price moved by more than 20%" in complaint and "--accept" in complaint
    assert kept() == {"g5.xlarge": 1.1}
    assert run("refresh", "--provider", "aws", "--accept")[0] == 0
    assert kept() == {"g5.xlarge": 1.1, "g6.xlarge": 0.08048}
    lists.answers[AWS_FILE] = aws_list({"Instance Type": "g6.xlarge", "PricePerUnit": "0.2"})
    assert run("refresh", "--provider", "aws", "--max-change", "2")[0] == 0
    assert kept()["g6.xlarge"] == 0.2


def test_one_that_does_not_answer_does_not_cost_the_others(run, lists: Lists) -> None:
    lists.serve_all()
    lists.answers[AWS_FILE] = 503
    status, printed, complaint = run("refresh")
    assert status == 1
    assert "NC24ads_A100_v4" in kept() and "p5.48xlarge" not in kept()
    assert f"The price list of AWS at {lists.url} answered 503" in complaint
    assert "Azure: 1 prices are of today" in printed


@pytest.mark.parametrize(
    ("path", "answer", "word"),
    [
        (AWS_FILE, "<html>a portal</html>", "has no column"),
        ("/api/retail/prices", "<html>a portal</html>", "cannot be read"),
        ("/api/retail/prices", "[]", "not a JSON object"),
        ("/api/retail/prices", '{"Items": 5}', "has no Items"),
        ("/api/retail/prices", json.dumps(azure_page(following="http://elsewhere.example/x")), "elsewhere.example"),
        ("/api/retail/prices", json.dumps(azure_page(following="file:///etc/passwd")), "cannot be followed"),
        ("/v1/services/6F81-5844-456A/skus", 403, "Check the API key"),
        ("/v1/services/6F81-5844-456A/skus", '{"skus": [], "nextPageToken": ""}', ""),
    ],
)
def test_lists_that_are_none(run, lists: Lists, path: str, answer: str | int, word: str) -> None:
    lists.serve_all()
    lists.answers[path] = answer
    status, _, complaint = run("refresh", "--gcp-api-key", KEY)
    assert status == (1 if word else 0)
    assert word in complaint and KEY not in complaint and "Traceback" not in complaint
    assert len(kept()) > 0


def test_a_list_that_never_ends_is_given_up(run, lists: Lists) -> None:
    lists.serve_all()
    lists.answers["/second"] = json.dumps(azure_page(following=f"{lists.url}/second"))
    status, _, complaint = run("refresh", "--provider", "azure")
    assert status == 1 and "more than 100 pages" in complaint


def test_a_file_that_breaks_off_is_no_list(run, lists: Lists) -> None:
    lists.answers[AWS_FILE] = aws_list({})
    lists.announced = 300_000_000
    status, _, complaint = run("refresh", "--provider", "aws")
    assert status == 1 and "broke off" in complaint and kept() == {}


def test_nobody_there(run, lists: Lists) -> None:
    lists.server.shutdown()
    lists.server.server_close()
    status, _, complaint = run("refresh")
    assert status == 1
    assert "The price list of AWS" in complaint and "The price list of Azure" in complaint
    assert "Check the connection" in complaint
    assert not kept_path().exists()


def test_a_copy_in_files_will_do(run, lists: Lists, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / AWS_FILE.lstrip("/")
    copy.parent.mkdir(parents=True)
    copy.write_text(aws_list({"PricePerUnit": "0.81"}))
    assert run("refresh", "--provider", "aws", "--from", f"aws={(tmp_path / 'copy').as_uri()}")[0] == 0
    assert kept() == {"g6.xlarge": 0.81} and lists.keys == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--provider", "modal"], "Modal and Replicate come with a new version"),
        (["--from", "aws"], "PROVIDER=URL"),
        (["--from", "aws=ftp://x"], "PROVIDER=URL"),
        (["--from", "ibm=http://x"], "'ibm'"),
        (["--max-change", "-1"], "--max-change is -1"),
    ],
    ids=str,
)
def test_bad_input(run, arguments: list[str], word: str) -> None:
    status, _, complaint = run("refresh", *arguments)
    assert status == 2 and word in complaint


def test_the_prices_are_shown_with_date_and_source(run) -> None:
    status, printed, _ = run("show")
    assert status == 0
    assert "p5.48xlarge" in printed and "2026-11-23" in printed and "Cloud Billing catalogue" in printed
    assert not any(line.endswith(" ") for line in printed.splitlines())
    rows = json.loads(run("show", "--json")[1])
    assert {"usd_per_hour", "currency", "region", "as_of", "source"} <= rows[0].keys()
