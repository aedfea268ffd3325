"""``python -m gradleak.cli``, for where the script is not on the path."""

from gradleak.cli import main

main()
