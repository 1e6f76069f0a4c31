"""Where the checkout is, told from `build.py` to Blender."""

from __future__ import annotations

from shared.checkout import remember_checkout, remembered_checkout


def test_the_last_checkout_is_found_as_long_as_it_holds_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_KEYS", str(tmp_path / "new" / "keys"))
    assert remembered_checkout() == ""
    for name in ("first", "zweiter Ördner"):
        (tmp_path / name / "inference_server").mkdir(parents=True)
        remember_checkout(tmp_path / name)
        assert remembered_checkout() == str(tmp_path / name)
    (tmp_path / name / "inference_server").rmdir()
    assert remembered_checkout() == ""
    monkeypatch.setenv("POSEANYTHING_KEYS", "/proc/self/keys")
    remember_checkout(tmp_path / "first")
    assert remembered_checkout() == ""
