"""``python -m refold``: the command line."""

from refold.pipelines.cli.main import main

if __name__ == "__main__":
    main()
