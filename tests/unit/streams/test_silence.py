"""How long an engine has judged nothing although it was asked."""

from workers.streams.silence import Silence


def test_a_silence_lasts_from_the_first_failure_to_the_newest() -> None:
    silence = Silence()
    assert silence.lasted_s == 0
    silence.failed(10)
    assert silence.lasted_s == 0
    silence.failed(15)
    silence.failed(17)
    assert silence.lasted_s == 7


def test_one_judgement_ends_it() -> None:
    silence = Silence()
    silence.failed(10)
    silence.judged()
    silence.failed(400)
    silence.failed(401)
    assert silence.lasted_s == 1
