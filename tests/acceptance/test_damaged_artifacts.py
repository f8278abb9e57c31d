"""Stored files that were damaged are never served: converted ones are made again, imported ones say what to do."""

from pathlib import Path

from tests.acceptance.server import Server, body

DATE = "date: monday, march 3, 2014"


def flip_a_byte(path: Path) -> None:
    """Damage a file without changing its size."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-10, 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0xFF]))


def test_damaged_files_are_noticed_and_mended(bare_data_dir: Path) -> None:
    with Server(bare_data_dir) as server:
        model_id = server.import_model("t5-date")
        server.deploy(model_id, body("date", "ctranslate2"))
        (converted,) = bare_data_dir.glob("artifacts/*/model.bin")
        flip_a_byte(converted)
        server.deploy(model_id, body("date", "ctranslate2"))
        assert server.complete("date", DATE, temperature=0) == "2014-03-03"

        (imported,) = bare_data_dir.glob("artifacts/*/model.safetensors")
        flip_a_byte(imported)
        job_id = server.begin_deploy(model_id, body("date", "ctranslate2"))
        ended = server.wait(job_id, expect="FAILED")
        assert ended["reason"] == "ARTIFACT_CORRUPT"
        assert "model.safetensors" in ended["message"]
        assert "import the model again" in ended["message"]
        assert server.complete("date", DATE, temperature=0) == "2014-03-03"  # the version before still serves

        server.import_model("t5-date")
        server.deploy(model_id, body("date", "ctranslate2"))
