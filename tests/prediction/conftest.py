import threading
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from blue_people import Predictor
from dhn.cli import main


@pytest.fixture
def predictor():
    return Predictor()


@pytest.fixture
def run(monkeypatch, tmp_path, predictor):
    """`dhn predict` in an empty folder; returns click's result."""
    monkeypatch.setattr("dhn.load", lambda checkpoint, **options: predictor)

    def stop_event():
        predictor.stop = threading.Event()
        return predictor.stop

    monkeypatch.setattr("dhn.prediction.run.threading", SimpleNamespace(Event=stop_event))
    monkeypatch.chdir(tmp_path)

    def command(*arguments, code=0, **options):
        result = CliRunner().invoke(main, ["predict", *map(str, arguments)], **options)
        assert result.exit_code == code, result.output
        if code:
            assert "Traceback" not in result.output
        return result

    return command
