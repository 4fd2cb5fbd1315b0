"""The folders that the sandbox of `grade` shows are not hidden by its scratch folder."""

from bertcourse.grading.sandbox import Limits, shown_folders, walls


def test_the_scratch_folder_is_mounted_before_what_may_lie_below_it():
    options = walls(Limits())
    mounted = [target for option, target in zip(options, options[1:], strict=False) if option == "--tmpfs"]
    scratch = options.index("/tmp", options.index("--tmpfs"))
    assert mounted.count("/tmp") == 1 and all(options.index(str(folder)) > scratch for folder in shown_folders())
